"""A task is found by name or import path, and checked."""

import sys

import pytest

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.task_config import ArithmeticConfig
from grpo_jax.tasks.load import load_task

MODULE = """
import dataclasses
from grpo_jax.data.examples import Example
from grpo_jax.tasks.base import Task

NUMBER = 3

def exact(completions):
    return [float(each.text == each.reference) for each in completions]

def make(config, **changes):
    examples = [Example(id=7, question=config.system_prompt, reference="1")]
    task = Task("mine", examples, [], [], {"accuracy": exact})
    return dataclasses.replace(task, **changes)

def no_accuracy(config):
    return make(config, rewards={"exact": exact})

def watches(config):
    return make(config, watched=["f1"])

def no_example(config):
    return make(config, train=[])

def same_ids(config):
    return make(config, test=make(config).train * 2)

def bad_id(config):
    return make(config, validation=[Example(id=2**31, question="q", reference="1")])

def nothing(config):
    return None
"""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_task_module.py").write_text(MODULE)
    (tmp_path / "broken_task_module.py").write_text("import not_installed_anywhere")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("own_task_module", "broken_task_module"):
        sys.modules.pop(name, None)


def load(name: str):
    return load_task(TaskConfig(name=name, system_prompt="hello"), RewardConfig())


def test_arithmetic():
    section = ArithmeticConfig(train_problems=5, validation_problems=2, test_problems=3)
    task = load_task(TaskConfig(arithmetic=section), RewardConfig())
    assert [len(task.train), len(task.validation), len(task.test)] == [5, 2, 3]
    assert dict(task.take_counts()) == {}
    task.close()


def test_own_function_gets_the_config():
    task = load("own_task_module:make")
    assert (task.name, task.train[0].question) == ("mine", "hello")
    task.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maths", "'maths': did you mean 'math'.*package.module:function"),
        ("xyz", "'xyz': it must be one of .*'arithmetic', 'math'"),
        ("own_task_module:", "must be one of"),
        ("own_task_modul:make", "no module 'own_task_modul'"),
        ("own_task_module.sub:make", "no module 'own_task_module.sub'"),
        ("own_task_module:mak", "no function 'mak'; it has .*'make'"),
        ("own_task_module:NUMBER", "no function 'NUMBER'"),
        ("own_task_module:nothing", "returned a NoneType; return a .*Task"),
        ("own_task_module:no_accuracy", r"rewards \['exact'\]: .*'accuracy'"),
        ("own_task_module:watches", "watches 'f1', which is none of its rewards"),
        ("own_task_module:no_example", "no training example"),
        ("own_task_module:same_ids", "split test: ids .* some occur twice"),
        ("own_task_module:bad_id", "split validation: ids .* found 2147483648"),
    ],
)
def test_clear_errors(name, message):
    with pytest.raises(ValueError, match=message):
        load(name)


def test_error_inside_the_module_stays_itself():
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load("broken_task_module:make")
