"""Imports point one way, the removed and the unstable parts of JAX stay out."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "grpo_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
MAX_LINES = 340
# One list of every field: longer than a file that is read as a story.
LONG_FILES = {"config.py": 420}

# Parts of the configuration in files of their own.
SECTIONS = {
    f"{name}_config"
    for name in (
        *("reward", "rollout", "monitor", "retrieval", "task", "episode", "expert"),
        *("guidance", "expansion", "budget"),
    )
}
CONFIG = {"config", "config_json", "choices"} | SECTIONS
HOST = {"rewards", "tasks", "retrieval", "environments", "data", "curation"}
# What each part may import from grpo_jax, besides itself. A room or a module.
ALLOWED = {
    "choices": set(),
    "records": set(),
    "sections": set(),
    **{name: {"choices", "sections"} for name in SECTIONS},
    "config": {"choices", "sections"} | SECTIONS,
    "config_json": {"config", "sections"},
    "config_files": {"sections"} | CONFIG,
    "objective": {"choices", "records"},
    "policy": {"objective", "records"} | CONFIG,
    "data": CONFIG,
    "rewards": CONFIG,
    "retrieval": {"data", "imports"} | CONFIG,
    "curation": {"rewards", "data", "reporting"} | CONFIG,
    "imports": set(),
    "tasks": {"rewards", "retrieval", "data", "imports"} | CONFIG,
    "environments": {"tasks", "rewards", "retrieval", "data", "imports"} | CONFIG,
    "rollout": {"policy", "objective", "records"} | HOST | CONFIG,
    "reporting": set(),
    "trainer": {"rollout", "policy", "objective", "records", "reporting"}
    | HOST
    | CONFIG,
    "doors": {"config_files", "rewards"} | CONFIG,
}
NO_JAX = HOST | CONFIG | {"reporting", "config_files", "doors", "sections"}
# Computes on the devices; nothing imports it before it is configured.
ON_DEVICES = "grpo_jax.retrieval.dense"
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}


def part_of(module: str) -> str:
    """grpo_jax.policy.layers -> policy; grpo_jax.train -> train."""
    return module.split(".")[1] if "." in module else ""


def module_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST) -> set[str]:
    """Full names of everything imported, wherever the statement stands."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_of_statement(statement: ast.stmt) -> set[str]:
    """What runs when the module is imported: not what is inside a function."""
    inside = isinstance(statement, ast.FunctionDef | ast.ClassDef)
    return set() if inside else imports_of(statement)


TREES = {module_of(path): ast.parse(path.read_text()) for path in FILES}
IMPORTS = {module: imports_of(tree) for module, tree in TREES.items()}


def internal(module: str, imports: dict[str, set[str]]) -> set[str]:
    """The modules of the package that a module imports."""
    names = {name for name in imports[module] if name.startswith("grpo_jax.")}
    return {name if name in imports else name.rpartition(".")[0] for name in names}


def wrong_arrows(imports: dict[str, set[str]]) -> list[str]:
    found = []
    for module in imports:
        part = part_of(module)
        if not part:
            continue
        allowed = ALLOWED.get(part)
        if allowed is None:  # a door: anything but another door
            allowed = set(ALLOWED)
        for target in internal(module, imports):
            if part_of(target) not in allowed | {part}:
                found.append(f"{module} -> {target}")
    return found


def cycle(imports: dict[str, set[str]]) -> list[str]:
    """The modules of one import cycle, if there is one."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in done:
            return []
        for target in sorted(internal(module, imports) & imports.keys()):
            if found := visit(target, [*trail, module]):
                return found
        done.add(module)
        return []

    return next((found for module in imports if (found := visit(module, []))), [])


def forbidden(tree: ast.AST) -> list[str]:
    """Names of the API that this project does without."""
    names = imports_of(tree)
    # An attribute chain says the same as an import.
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                name = ast.unparse(item.context_expr).rpartition(".")[2]
                if name == "mesh" or name.startswith("Mesh("):
                    names.add("with mesh:")
    return sorted(name for name in names if _is_forbidden(name))


def _is_forbidden(name: str) -> bool:
    parts = name.split(".")
    return (
        name.startswith(("flax.nnx", "jax.experimental.shard_map"))
        or name == "with mesh:"
        or parts[0] in ("torch", "tensorflow", "ray")
        or "pjit" in parts
        or "pmap" in parts
    )


def test_every_room_has_its_arrows():
    assert ALLOWED.keys() >= ROOMS
    assert len(FILES) > 50


def test_imports_point_one_way():
    assert wrong_arrows(IMPORTS) == []


def test_no_cycles():
    assert cycle(IMPORTS) == []


def test_host_code_imports_no_jax():
    found = [
        f"{module} imports {name}"
        for module, names in IMPORTS.items()
        if part_of(module) in NO_JAX and module != ON_DEVICES
        for name in names
        if name.split(".")[0] in JAX
    ]
    assert found == []


def test_no_module_imports_the_one_on_devices_when_it_is_imported_itself():
    found = [
        module
        for module, tree in TREES.items()
        for statement in tree.body
        if any(name.startswith(ON_DEVICES) for name in imports_of_statement(statement))
    ]
    assert found == []
    assert any(ON_DEVICES in internal(module, IMPORTS) for module in IMPORTS)


@pytest.mark.parametrize("module", TREES)
def test_forbidden_names(module):
    assert forbidden(TREES[module]) == []


def test_files_tell_one_story():
    long = {
        path.relative_to(PACKAGE).as_posix(): lines
        for path in FILES
        if (lines := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert {name: lines for name, lines in long.items() if name not in LONG_FILES} == {}
    assert all(lines <= LONG_FILES[name] for name, lines in long.items())


def test_the_checks_see_what_they_should():
    imports = {
        "grpo_jax": set(),
        "grpo_jax.config": set(),
        "grpo_jax.train": set(),
        "grpo_jax.objective": set(),
        "grpo_jax.objective.a": {"grpo_jax.policy.b.c", "jax"},
        "grpo_jax.policy": set(),
        "grpo_jax.policy.b": {"grpo_jax.objective.a"},
        "grpo_jax.report": {"grpo_jax.train"},
    }
    assert wrong_arrows(imports) == [
        "grpo_jax.objective.a -> grpo_jax.policy.b",
        "grpo_jax.report -> grpo_jax.train",
    ]
    assert set(cycle(imports)) == {"grpo_jax.objective.a", "grpo_jax.policy.b"}
    for text in (
        "from flax import nnx",
        "import flax.nnx as x",
        "import flax\nflax.nnx.Module",
        "import torch.nn",
        "jax.pmap(f)",
        "from jax.experimental.pjit import pjit",
        "from jax.experimental.shard_map import shard_map",
        "def f():\n  import torch",
        "with mesh:\n  pass",
        "with run.model.mesh:\n  pass",
        "with jax.sharding.Mesh(a, b):\n  pass",
    ):
        assert forbidden(ast.parse(text)), text
    assert not forbidden(ast.parse("with jax.set_mesh(mesh):\n  jax.shard_map(f)"))
