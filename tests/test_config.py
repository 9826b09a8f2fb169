"""The configuration: strict about names, types and values, and nothing unread."""

import ast
import dataclasses
import json
import pathlib
import re

import pytest

from grpo_jax import choices, config_files, config_json
from grpo_jax import config as c

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
QUICKSTART = str(ROOT / "configs" / "quickstart.py")


def valid() -> c.TrainConfig:
    """A default configuration, which lacks only a tokenizer."""
    return c.TrainConfig(policy=c.PolicyConfig(tokenizer="characters"))


def changed(**fields):
    """A configuration with fields set by path, `__` between the names."""
    config = valid()
    for path, value in fields.items():
        *sections, name = path.split("__")
        target = config
        for section in sections:
            target = getattr(target, section)
        setattr(target, name, value)
    return config


def sections(section=None, path="config"):
    """Yields the path and every section, from the top."""
    section = section or valid()
    yield path, section
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from sections(value, f"{path}.{field.name}")


# Names and sealing.


def test_a_sealed_configuration_cannot_be_assigned_to_anywhere():
    config = valid().seal()
    for path, section in sections(config):
        for field in dataclasses.fields(section):
            with pytest.raises(
                AttributeError, match=f"sealed: cannot set '{field.name}"
            ):
                setattr(section, field.name, getattr(section, field.name))
        with pytest.raises(AttributeError, match="sealed"):
            section.new_name = path


def test_sealing_again_changes_nothing():
    config = valid().seal()
    assert config.seal() is config


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(
        AttributeError, match="TrainerConfig has no field 'stepz'.*'steps'"
    ):
        valid().trainer.stepz = 3
    with pytest.raises(TypeError, match="stepz"):
        c.TrainerConfig(stepz=3)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("seed", "1", "int"),
        ("seed", True, "int"),
        ("trainer__steps", 1.5, "int"),
        ("optimizer__learning_rate", "1e-6", "float"),
        ("task__use_chat_template", 1, "bool"),
        ("task__name", None, "str"),
        ("policy__path", pathlib.Path("x"), "str"),
        ("objective__loss", "dapo", "Loss.DAPO"),
        ("policy__dtype", choices.Remat.FULL, "Dtype.FLOAT32"),
        ("reward__weights", [1.0], r"dict\[str, float\]"),
        ("rollout__sampling", 1.0, "SamplingConfig"),
    ],
)
def test_a_wrong_type_is_told_with_field_and_value(field, value, wanted):
    name = "config." + field.replace("__", ".")
    with pytest.raises(ValueError, match=f"{name} is .*it must be .*{wanted}") as error:
        changed(**{field: value}).seal()
    assert repr(value) in str(error.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"accuracy": "1"}, r"config.reward.weights\['accuracy'\] is '1'"),
        ({"accuracy": float("nan")}, "is nan: use a finite number"),
        ({1: 1.0}, "a name in config.reward.weights is 1 "),
    ],
)
def test_weights_are_checked_one_by_one(weights, message):
    with pytest.raises(ValueError, match=message):
        changed(reward__weights=weights).seal()


def test_whole_numbers_are_floats_too():
    assert changed(optimizer__learning_rate=1).seal().optimizer.learning_rate == 1


# Values. Each line is an override and what its message must say.

RULES = [
    (dict(policy__tokenizer=""), "config.policy.tokenizer is empty"),
    (dict(policy__preset=""), "config.policy.path and config.policy.preset are both"),
    (dict(seed=-1), "config.seed is -1"),
    (dict(task__arithmetic__operations=0), "config.task.arithmetic.operations is 0"),
    (dict(task__arithmetic__modulus=1), "config.task.arithmetic.modulus is 1"),
    (dict(task__arithmetic__operators="/"), "config.task.arithmetic.operators is '/'"),
    (dict(task__arithmetic__mistake_fraction=1.1), "mistake_fraction is 1.1"),
    (dict(task__arithmetic__test_problems=0), "test_problems is 0: use at least 1"),
    (dict(task__arithmetic__problems_seed=-1), "problems_seed is -1"),
    (dict(task__name="math"), "config.task.train_path is empty"),
    (dict(task__prompt_template="Solve:"), "must contain '{question}'"),
    (dict(task__validation_rows=-1), "config.task.validation_rows is -1"),
    (dict(rollout__group_size=1), "config.rollout.group_size is 1: use at least 2"),
    (dict(rollout__prompts_per_step=0), "config.rollout.prompts_per_step is 0"),
    (dict(rollout__easy_fraction=1.0), "config.rollout.easy_fraction is 1.0"),
    (dict(rollout__easy_hops=0), "config.rollout.easy_hops is 0: use at least 1"),
    (dict(experts__most=-1), "config.experts.most is -1"),
    (dict(rollout__sampling__temperature=0.0), "config.rollout.sampling.temperature"),
    (dict(rollout__sampling__temperature=float("nan")), "temperature is nan"),
    (dict(rollout__sampling__top_p=0.0), "config.rollout.sampling.top_p is 0.0"),
    (dict(rollout__sampling__top_k=-1), "config.rollout.sampling.top_k is -1"),
    (dict(rollout__sampling__min_p=2.0), "config.rollout.sampling.min_p is 2.0"),
    (dict(reward__weights={"accuracy": 0.0}), "no reward has weight"),
    (dict(reward__weights={}), "no reward has weight"),
    (dict(reward__workers=0), "config.reward.workers is 0"),
    (dict(reward__check_seconds=0.0), "config.reward.check_seconds is 0.0"),
    (dict(reward__cosine__max_tokens=-1), "config.reward.cosine.max_tokens is -1"),
    (dict(reward__repetition__ngram=0), "config.reward.repetition.ngram is 0"),
    (dict(reward__repetition__penalty=1.0), "penalty is 1.0: use 0 or less"),
    (dict(reward__overlong__buffer_tokens=-1), "overlong.buffer_tokens is -1"),
    (dict(objective__clip_low=0.0), "config.objective.clip_low is 0.0"),
    (dict(optimizer__beta1=1.0), "config.optimizer.beta1 is 1.0"),
    (dict(optimizer__learning_rate=0.0), "config.optimizer.learning_rate is 0.0"),
    (dict(optimizer__learning_rate=float("inf")), "config.optimizer.learning_rate"),
    (dict(warm_start__optimizer__beta2=1.5), "config.warm_start.optimizer.beta2"),
    (dict(warm_start__batch_size=0), "config.warm_start.batch_size is 0"),
    (dict(trainer__steps=-1), "config.trainer.steps is -1: use at least 0"),
    (dict(trainer__logged_groups=-2), "config.trainer.logged_groups is -2"),
    (dict(trainer__micro_batch_tokens=-1), "config.trainer.micro_batch_tokens is -1"),
    (dict(warm_start__micro_batch_tokens=-1), "config.warm_start.micro_batch_tokens"),
    (dict(evaluation__samples=0), "config.evaluation.samples is 0"),
    (dict(evaluation__confidence=1.0), "config.evaluation.confidence is 1.0"),
    (dict(evaluation__confidence=0.0), "config.evaluation.confidence is 0.0"),
    (dict(checkpoint__every_steps=0), "config.checkpoint.every_steps is 0"),
    (dict(mesh__fsdp=0), "config.mesh.fsdp is 0"),
]
CROSS = [
    (
        dict(objective__dual_clip=1.1),
        ("config.objective.dual_clip is 1.1", "config.objective.clip_high (0.2)"),
    ),
    (
        dict(objective__loss=choices.Loss.CISPO),
        ("config.objective.clip_high is 0.2", "config.objective.loss=cispo"),
    ),
    (
        dict(objective__kl_coef=0.1, objective__divergence=choices.Divergence.K1),
        ("config.objective.divergence is k1", "config.objective.kl_coef=0"),
    ),
    (
        dict(task__instructions=True, task__tags=choices.Tags.COMPACT),
        ("config.task.instructions is True", "config.task.tags is compact"),
    ),
    *(
        (
            {"episode__environment": "search", limit: 16, **more},
            ("config.episode.answer_tokens is 16", f"{name} 16: replies have no room"),
        )
        for limit, name, more in (
            ("rollout__max_completion_tokens", "rollout.max_completion_tokens", {}),
            (
                "rollout__stages__initial_tokens",
                "rollout.stages.initial_tokens",
                {"rollout__stages__every_steps": 1},
            ),
            (
                "evaluation__max_completion_tokens",
                "evaluation.max_completion_tokens",
                {},
            ),
        )
    ),
    (
        dict(reward__cosine__wrong_long=0.5),
        ("wrong_long are -1.0 and 0.5", "config.reward.cosine.correct_short and"),
    ),
    (
        dict(reward__overlong__buffer_tokens=1025),
        (
            "config.reward.overlong.buffer_tokens is 1025",
            "max_completion_tokens",
            "1024",
        ),
    ),
    (
        dict(reward__overlong__buffer_tokens=200, reward__overlong__max_tokens=100),
        ("config.reward.overlong.buffer_tokens is 200", "overlong.max_tokens", "100"),
    ),
    (
        dict(trainer__minibatches=3),
        ("config.trainer.minibatches is 3", "config.rollout.prompts_per_step", "256"),
    ),
]


@pytest.mark.parametrize(
    ("fields", "message"), RULES, ids=lambda value: str(value)[:50]
)
def test_impossible_values(fields, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        changed(**fields).seal()


@pytest.mark.parametrize(("fields", "flags"), CROSS, ids=lambda value: str(value)[:50])
def test_rules_between_fields_name_every_flag(fields, flags):
    with pytest.raises(ValueError) as error:
        changed(**fields).seal()
    for flag in flags:
        assert flag in str(error.value)


# JSON.


@pytest.mark.parametrize("config", [valid(), config_files.load(QUICKSTART)])
def test_json_round_trip(config):
    text = config_json.to_json(config)
    again = config_json.from_json(text).seal()
    assert again == config
    assert config_json.to_json(again) == text


def test_json_has_enums_by_value():
    values = json.loads(
        config_json.to_json(changed(objective__loss=choices.Loss.DR_GRPO))
    )
    assert values["objective"]["loss"] == "dr_grpo"
    assert values["policy"]["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"trainer": {"stepz": 1}}', "config.trainer has no field 'stepz'; did you"),
        (
            '{"objective": {"loss": "ppo"}}',
            "config.objective.loss is 'ppo': use one of",
        ),
        ('{"trainer": 3}', "config.trainer is 3: it must be an object"),
        ("[]", r"config is \[\]"),
        ("{", "Expecting"),
    ],
)
def test_malformed_json(text, message):
    with pytest.raises(ValueError, match=message):
        config_json.from_json(text)


# Files.


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_loads_and_its_docstring_gives_the_command(path):
    config_files.load(str(path)).seal()
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring is not None
    assert f"python -m grpo_jax.train --config=configs/{path.name}" in docstring
    overrides = re.findall(r"--config\.[\w.]+", docstring)
    config_files.check_overrides(overrides)


@pytest.mark.parametrize("name", ["miniature", "math", "code"])
def test_guidance_follows_a_reward_that_its_run_has(name):
    path = next(path for path in FILES if path.name == "g2rpoa.py")
    config = config_files.load(f"{path}:{name}").seal()
    assert config.task.name == ("arithmetic" if name == "miniature" else name)
    assert config.guidance.fraction > 0
    assert config.reward.weights[config.guidance.signal_reward] == 1.0
    rollout, guidance = config.rollout, config.guidance
    assert guidance.maximum < rollout.max_completion_tokens


def write(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return str(path)


TAKES_ARGUMENT = """
from grpo_jax import config as c
def get_config(size="one"):
    return c.TrainConfig(task=c.TaskConfig(system_prompt=size))
"""


def test_a_file_may_take_an_argument(tmp_path):
    path = write(tmp_path, TAKES_ARGUMENT)
    assert config_files.load(path).task.system_prompt == "one"
    assert config_files.load(f"{path}:a:b").task.system_prompt == "a:b"
    assert config_files.load(f"{path}:").task.system_prompt == ""
    with pytest.raises(ValueError, match="quickstart.py: TypeError: get_config"):
        config_files.load(f"{QUICKSTART}:large")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef get_config(:\n", "mine.py, line 2: invalid syntax"),
        ("x = 1\ny = z\n", "mine.py, line 2: NameError: name 'z'"),
        ("import nowhere\n", "mine.py, line 1: ModuleNotFoundError: No module"),
        ("x = 1\n", "has no function get_config: define one"),
        ("def get_config():\n  return {}\n", "returned a dict: return a grpo_jax"),
        ("def get_config():\n  return 1/0\n", "mine.py, line 2: ZeroDivisionError"),
    ],
)
def test_broken_files(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        config_files.load(write(tmp_path, text))


def test_missing_file(tmp_path):
    with pytest.raises(
        ValueError, match="there is no file .*did you mean .*quickstart"
    ):
        config_files.load(QUICKSTART.replace("quick", "quik"))
    with pytest.raises(FileNotFoundError, match="holds no config.json"):
        config_files.of_workdir(tmp_path)


def test_a_workdirs_configuration_can_be_overridden(tmp_path):
    (tmp_path / "config.json").write_text(config_json.to_json(changed(seed=7)))
    config = config_files.load(str(tmp_path / "config.json"))
    config.trainer.steps = 5
    assert (config.seal().seed, config.trainer.steps) == (7, 5)
    assert config_files.of_workdir(tmp_path).trainer.steps == 100
    (tmp_path / "config.json").write_text('{"sed": 7}')
    with pytest.raises(
        ValueError, match="config.json: config has no field 'sed'.*seed"
    ):
        config_files.of_workdir(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "--config.trainer.stepz=1",
            "config.trainer has no field 'stepz'; did you mean",
        ),
        ("-config.trayner.steps=1", "config has no field 'trayner'; did you mean 'tra"),
        ("--config.optimizer.beta", "did you mean 'beta2' or 'beta1'"),
        ("--noconfig.evaluation.gredy", "did you mean 'greedy'"),
        ("--config.group_size=8", "there is --config.rollout.group_size"),
        (
            "--config.trainer=1",
            "is a section; set one of its fields: config.trainer.ste",
        ),
        ("--config.seed.x=1", "config.seed is a value without fields"),
    ],
)
def test_unknown_overrides(override, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        config_files.check_overrides(["--config.seed=1", override])
    assert str(error.value).startswith("--config.")
    config_files.check_overrides(["--config.reward.weights.format=1", "--", override])


# Every field is read.

# Read as getattr(config, f"..._problems") in these files.
READ_BY_FORMATTED_NAME = {
    ("trainer/evaluation.py", "evaluation", "validation_problems"),
    ("trainer/evaluation.py", "evaluation", "test_problems"),
}


def reads_of(tree: ast.Module) -> set[tuple[str, str]]:
    """(section, field) of every read, following parameters and simple assignments."""
    classes = {type(section).__name__: path for path, section in sections()}
    # The same class may be at several places; fields are checked by class.
    aliases: dict[str, set[str]] = {}
    kept: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name):
            if node.annotation.id in classes:
                aliases.setdefault(node.arg, set()).add(node.annotation.id)
        elif isinstance(node, ast.Assign):
            names, values = node.targets[0], node.value
            pairs = [(names, values)]
            if isinstance(names, ast.Tuple) and isinstance(values, ast.Tuple):
                pairs = list(zip(names.elts, values.elts, strict=True))
            for name, value in pairs:
                if isinstance(name, ast.Name) and isinstance(value, ast.Attribute):
                    aliases.setdefault(name.id, set()).add(value.attr)
                elif isinstance(name, ast.Attribute) and isinstance(value, ast.Name):
                    kept.append((name.attr, value.id))  # self._config = config
    for attribute, name in kept:
        aliases.setdefault(attribute, set()).update(aliases.get(name, ()))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            owner = node.value
            if isinstance(owner, ast.Attribute):
                for section in aliases.get(owner.attr, set()) | {owner.attr}:
                    found.add((section, node.attr))
            elif isinstance(owner, ast.Name):
                for section in aliases.get(owner.id, set()) | {owner.id}:
                    found.add((section, node.attr))
    return found


def test_no_field_is_read_nowhere():
    found = set()
    for path in (ROOT / "grpo_jax").rglob("*.py"):
        name = path.relative_to(ROOT / "grpo_jax").as_posix()
        if not re.fullmatch(r"\w*config(_files)?\.py", name):
            text = path.read_text()
            found |= reads_of(ast.parse(text))
            for file, section, field in READ_BY_FORMATTED_NAME:
                if name == file and 'f"{split}_problems"' in text:
                    found.add((section, field))
    unread = [
        f"{path}.{field.name}"
        for path, section in sections()
        for field in dataclasses.fields(section)
        if not {
            (path.rpartition(".")[2], field.name),
            (type(section).__name__, field.name),
        }
        & found
    ]
    assert unread == []


def test_reads_are_found_only_where_they_are():
    tree = ast.parse(
        "def f(x: OptimizerConfig, y):\n  a = y.trainer\n  return x.beta1, a.steps\n"
        "def g(config):\n  config.trainer.minibatches = 3\n"
    )
    found = reads_of(tree)
    assert {("OptimizerConfig", "beta1"), ("trainer", "steps")} <= found
    assert ("trainer", "minibatches") not in found
