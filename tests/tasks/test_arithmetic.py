"""Problems are disjoint, solutions right, mistakes planted as described."""

import dataclasses
import itertools
import re

import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.rewards.base import Completion
from grpo_jax.task_config import ArithmeticConfig
from grpo_jax.tasks import arithmetic

SMALL = ArithmeticConfig(
    train_problems=1500, validation_problems=100, test_problems=200
)
STEP = re.compile(r"(\d+)([-+*])(\d+)=(\d+)")


def small(**changes) -> ArithmeticConfig:
    return dataclasses.replace(SMALL, **changes)


def rewarded(name: str, text: str, reference: str = "8", prompt: str = "7-8?"):
    rewards = arithmetic.arithmetic(small(train_problems=1)).rewards
    completion = Completion(prompt, text, reference, 9, True, 0, {})
    return list(rewards[name]([completion]))


def check_solution(question: str, solution: str, modulus: int) -> tuple[int, int]:
    """Checks copying and returns the number of right steps and the answer."""
    thought, answer = re.fullmatch(
        r"<think>(.*)</think><answer>(\d+)</answer>", solution
    ).groups()
    steps = [STEP.fullmatch(step).groups() for step in thought.split(";")]
    rebuilt = steps[0][0] + "".join(sign + right for _, sign, right, _ in steps) + "?"
    assert rebuilt == question
    for before, after in itertools.pairwise(steps):
        assert after[0] == before[3]
    assert answer == steps[-1][3]
    right = sum(
        int(result) == eval(left + sign + second) % modulus
        for left, sign, second, result in steps
    )
    return right, int(answer)


@pytest.mark.parametrize(
    "changes",
    [{}, {"operations": 5, "operators": "+-*"}, {"modulus": 13, "operators": "*+"}],
)
def test_solutions_are_right(changes):
    config = small(**changes)
    task = arithmetic.arithmetic(config)
    for example in [*task.train, *task.validation, *task.test]:
        right, answer = check_solution(
            example.question, example.solution, config.modulus
        )
        assert right == example.tier == config.operations
        assert str(answer) == example.reference
        # Left to right, recomputed from the question alone.
        first, *rest = re.findall(r"[-+*]?\d+", example.question)
        value = first
        for term in rest:
            value = str(eval(f"({value}){term}") % config.modulus)
        assert value == example.reference


def test_worked_example():
    results = arithmetic.work([7, 8, 3, 4], "-+-", 10)
    assert results == [9, 2, 8]
    assert arithmetic.write_question([7, 8, 3, 4], "-+-") == "7-8+3-4?"
    assert (
        arithmetic.write_solution([7, 8, 3, 4], "-+-", results)
        == "<think>7-8=9;9+3=2;2-4=8</think><answer>8</answer>"
    )


def test_an_answer_may_state_every_result():
    task = arithmetic.arithmetic(small(answer=choices.Answer.ALL, operations=7))
    example = task.train[0]
    results = re.findall(r"=(\d)", example.solution)
    assert len(results) == 7 and example.reference == "".join(results)
    assert example.solution.endswith(f"<answer>{example.reference}</answer>")
    (shown,) = task.demonstrate([example], np.random.default_rng(0))
    stated = "".join(re.findall(r"=(\d)", shown))
    assert shown.endswith(f"<answer>{stated}</answer>")


# 80,000 problems (a permutation) and 12,800,000,000 (drawn one by one).
@pytest.mark.parametrize("operations", [3, 7])
def test_splits_are_disjoint_and_of_their_size(operations):
    task = arithmetic.arithmetic(small(operations=operations))
    assert [len(task.train), len(task.validation), len(task.test)] == [1500, 100, 200]
    splits = [task.train, task.validation, task.test]
    questions = [example.question for split in splits for example in split]
    assert len(set(questions)) == 1800
    for split in splits:
        assert [example.id for example in split] == list(range(len(split)))


def test_splits_stay_disjoint_under_other_sizes_and_seeds():
    first = arithmetic.arithmetic(SMALL)
    second = arithmetic.arithmetic(small(problems_seed=1, train_problems=3000))
    trained = {example.question for example in second.train}
    assert not trained & {example.question for example in first.test}
    third = arithmetic.arithmetic(small(train_problems=3000))
    assert third.test == first.test
    assert third.train[:1500] == first.train


def test_same_config_same_task_other_seed_other_problems():
    first, again = arithmetic.arithmetic(SMALL), arithmetic.arithmetic(small())
    assert (first.train, first.test) == (again.train, again.test)
    other = arithmetic.arithmetic(small(problems_seed=1))
    assert other.train != first.train
    # The same on every machine and with every release of NumPy.
    assert [example.question for example in first.train[:2]] == ["0-4-1+2?", "8-5+1-4?"]


def test_operators_may_repeat():
    single, double = small(operators="+"), small(operators="++")
    assert arithmetic.arithmetic(single).train == arithmetic.arithmetic(double).train


@pytest.mark.parametrize("name", ["train", "validation", "test"])
def test_too_few_problems_exist(name):
    sizes = {f"{split}_problems": 1 for split in ("train", "validation", "test")}
    sizes[f"{name}_problems"] = 190
    message = rf"arithmetic\.{name}_problems is 190: only \d+ .* 200 distinct problems"
    with pytest.raises(ValueError, match=message):
        arithmetic.arithmetic(ArithmeticConfig(operations=1, **sizes))


def test_every_problem_can_be_used():
    sizes = {"validation_problems": 1, "test_problems": 1}
    with pytest.raises(ValueError) as error:
        arithmetic.arithmetic(
            ArithmeticConfig(operations=1, train_problems=200, **sizes)
        )
    count = int(re.search(r"only (\d+)", str(error.value))[1])
    config = ArithmeticConfig(operations=1, train_problems=count, **sizes)
    assert len({e.question for e in arithmetic.arithmetic(config).train}) == count


def test_problems_drawn_one_by_one_are_distinct_too(monkeypatch):
    monkeypatch.setattr(arithmetic, "_MAX_PERMUTED", 10)
    sizes = {"train_problems": 60, "validation_problems": 5, "test_problems": 5}
    train = arithmetic.arithmetic(ArithmeticConfig(operations=1, **sizes)).train
    assert len({example.question for example in train}) == 60


def test_without_mistakes_demonstrations_are_the_solutions():
    examples = arithmetic.arithmetic(SMALL).train
    texts = arithmetic.demonstrations(examples, 0.0, np.random.default_rng(0))
    assert texts == [example.solution for example in examples]


def test_mistakes_are_as_frequent_as_asked_and_are_copied():
    task = arithmetic.arithmetic(small(mistake_fraction=0.35))
    texts = task.demonstrate(task.train, np.random.default_rng(0))
    checked = [
        check_solution(example.question, text, 10)
        for example, text in zip(task.train, texts, strict=True)
    ]
    right_steps = np.mean([right / 3 for right, _ in checked])
    assert right_steps == pytest.approx(1 - 0.35 * 0.9, abs=0.02)
    right_answers = np.mean(
        [
            str(answer) == example.reference
            for (_, answer), example in zip(checked, task.train, strict=True)
        ]
    )
    assert right_answers == pytest.approx(0.65**3 + (1 - 0.65**3) / 10, abs=0.04)
    assert texts == task.demonstrate(task.train, np.random.default_rng(0))
    assert texts != task.demonstrate(task.train, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>7-8=9</think><answer>8</answer>", 1.0),
        ("<answer>8</answer>", 1.0),
        ("<think>a</think><answer>3</answer><answer>8</answer>", 1.0),
        ("<think>a</think><answer>8</answer><answer>3</answer>", 0.0),
        ("<think><answer>8</answer></think>", 0.0),
        ("<think><answer>8</answer>", 0.0),
        ("<think>a</think><answer> 8</answer>", 0.0),
        ("<think>a</think><answer>8", 0.0),
        ("<think>a</think>8</answer>", 0.0),
        ("<think>a</think><answer>08</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_accuracy(text, expected):
    assert rewarded("accuracy", text) == [expected]


def test_accuracy_where_the_prompt_opens_the_thought():
    opened = "7-8?<think>"
    assert rewarded("accuracy", "<answer>8</answer>", prompt=opened) == [0.0]
    assert rewarded("accuracy", "a</think><answer>8</answer>", prompt=opened) == [1.0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>7-8=9</think><answer>9</answer>", 1.0),
        ("<think>7-8=9</think><answer></answer>", 0.0),
        ("7-8=9</think><answer>9</answer>", 0.0),
        ("<think>7-8=9</think><answer>9</answer>!", 0.0),
        ("<think>7-8=9</think><answer>9</answer><answer>9</answer>", 0.0),
    ],
)
def test_format(text, expected):
    assert rewarded("format", text) == [expected]
