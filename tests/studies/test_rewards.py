"""The study of rewards: valid runs, demonstrators that repeat, sums that are right."""

import json
import re

import numpy as np
import pytest

from grpo_jax.config import TaskConfig
from grpo_jax.rewards.format import think_answer_format
from studies import rewards, rewards_results, tasks
from studies.study import Name
from tests.rewards.helpers import completion


@pytest.mark.parametrize(
    "name",
    [f"{regime}/{arm}/0" for regime, arms in rewards.arms().items() for arm in arms],
)
def test_every_run_has_a_valid_configuration(name):
    rewards.get_config(name).seal()


@pytest.mark.parametrize("regime", list(rewards.REGIMES))
def test_arms_differ_in_their_reward_alone(regime):
    control = rewards.get_config(f"{regime}/accuracy/1")
    for arm in rewards.REGIMES[regime].arms:
        config = rewards.get_config(f"{regime}/{arm}/1")
        if arm != "accuracy":
            assert config.reward != control.reward
        config.reward = control.reward
        if arm == "cosine_unscaled":
            assert config.objective != control.objective
            config.objective = control.objective
        assert config == control


def test_arms_start_from_the_base_of_their_seed():
    start = rewards.start(Name("hard", "legacy", 2))
    assert str(start) == "hard/base/2"
    assert rewards.get_config("hard/legacy/2").policy.path.endswith("hard/base/2/model")


def test_the_wave_is_as_far_within_the_limit_as_that_of_open_rs():
    # 3584 tokens of about three characters, over 3584 characters.
    characters = len("<think></think><answer></answer>") - 4
    limit = rewards.LIMIT_TOKENS - 1 + characters
    assert limit // 3 == rewards.WAVE_CHARACTERS


def demonstrate(name: str, mistakes: float) -> list[str]:
    config = TaskConfig()
    config.arithmetic.mistake_fraction = mistakes
    config.arithmetic.train_problems = 2000
    config.arithmetic.validation_problems = config.arithmetic.test_problems = 8
    task = getattr(tasks, name)(config)
    return task.demonstrate(task.train, np.random.default_rng(0))


DEMONSTRATION = re.compile(
    r"<think>(?P<steps>...=.(?:;...=.)*)(?P<again>(?:;.)*)</think>"
    r"<answer>(?P<answer>.)</answer>"
)


def parts(text: str) -> tuple[list[str], int]:
    """Returns the steps of a demonstration, and how often its result comes again."""
    match = DEMONSTRATION.fullmatch(text)
    assert match, text
    steps = match["steps"].split(";")
    assert set(match["again"]) <= {";", steps[-1][4]}
    assert match["answer"] == steps[-1][4]
    return steps, match["again"].count(";")


def is_right(steps: list[str]) -> bool:
    return all(eval(step[:3]) % 10 == int(step[4]) for step in steps)


def test_a_rambler_repeats_its_result_when_all_is_done():
    texts = demonstrate("rambling", mistakes=0.0)
    found = [parts(text) for text in texts]
    assert all(len(steps) == 3 and is_right(steps) for steps, _ in found)
    repeats = [count for _, count in found]
    # Geometric with a mean of 20, but for the few that are cut at 80.
    assert abs(np.mean(repeats) - 20) < 2 and max(repeats) == 80
    rows = [completion(text) for text in texts]
    assert think_answer_format(rows) == [1.0] * len(rows)


def test_how_long_a_rambler_is_does_not_depend_on_being_right():
    found = [parts(text) for text in demonstrate("rambling", mistakes=0.3)]
    right, wrong = (
        np.array([count for steps, count in found if is_right(steps) == value])
        for value in (True, False)
    )
    error = np.sqrt(right.var() / len(right) + wrong.var() / len(wrong))
    assert abs(right.mean() - wrong.mean()) < 3 * error


def test_a_terse_one_gives_up_one_time_in_five():
    found = [parts(text) for text in demonstrate("terse", mistakes=0.4)]
    shares = np.bincount([len(steps) for steps, _ in found]) / len(found)
    assert np.abs(shares - [0.0, 0.1, 0.1, 0.8]).max() < 0.03
    assert abs(np.mean([count for _, count in found]) - 3) < 0.3


def write_run(folder, *, passes, lengths, texts=("ab", "x" * 100)):
    """Writes a finished run of two steps."""
    (folder / "evaluation").mkdir(parents=True)
    (folder / "rollouts").mkdir()
    rows = [
        {
            "prompt": "1+1?",
            "completion": text,
            "reference": "2",
            "accuracy": float(index == 0),
            "completion_tokens": len(text) + 1,
            "finished": True,
            "step": 1,
            "group": index,
            "rewards": {"accuracy": float(index == 0)},
            "advantage": 1.0 + 2.0 * index,  # 9 of 10 squared in the wrong group
        }
        for index, text in enumerate(texts)
    ]
    lines = "\n".join(map(json.dumps, rows)) + "\n"
    for end, name in enumerate(("before", "after")):
        found = {"pass@1": {"mean": passes[end], "low": 0.0, "high": 1.0}}
        row = {
            "split": "test",
            "step": 2 * end,
            "sampled": found,
            "greedy": found,
            "completion_tokens_mean": lengths[end],
            "truncated_fraction": 0.125,
        }
        (folder / f"evaluation/{name}.json").write_text(json.dumps(row))
        (folder / f"evaluation/{name}.jsonl").write_text(lines)
        (folder / f"rollouts/00000{end + 1}.jsonl").write_text(lines)
    steps = [
        {
            "step": step,
            "rollout/generated_tokens": 1000,
            "reward/accuracy": passes[step - 1],
            "rollout/completion_tokens_mean": lengths[step - 1],
        }
        for step in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n")
    (folder / "summary.json").write_text(json.dumps({"stopped": "finished"}))


def test_arms_are_compared_by_accuracy_and_by_length(tmp_path):
    for seed in range(3):
        at = tmp_path / "solvable"
        write_run(at / f"base/{seed}", passes=(0.5, 0.5), lengths=(60.0, 60.0))
        write_run(at / f"accuracy/{seed}", passes=(0.5, 0.9), lengths=(60.0, 50.0))
        write_run(
            at / f"cosine/{seed}", passes=(0.5, 0.9), lengths=(60.0, 20.0 + 10 * seed)
        )
    rewards_results.write(tmp_path)
    table = (tmp_path / "results.md").read_text().splitlines()
    assert table[2] == (
        "3 seeds. Bases: sampled 50.0 %, greedy 50.0 %; 60.0 tokens, 50.0 % past the "
        "low, 12.5 % truncated."
    )
    assert table[4].endswith("right at 2k | tokens at 2k |")
    assert table[7] == (
        "| cosine | 90.0 (90.0 to 90.0) | +0.0 ± 0.0 | 90.0 (90.0 to 90.0) | "
        "30.0 (20.0 to 40.0) | -20.0 ± 24.8 | 50.0 (50.0 to 50.0) | "
        "12.5 (12.5 to 12.5) | 90.0 | 70.0 (70.0 to 70.0) | 45.0 (40.0 to 50.0) |"
    )
    assert "| solvable | legacy | 0.0 % of 3 | none | none |" in table
    assert (tmp_path / "results.svg").read_text().startswith("<svg")


def test_nothing_has_ended_yet(tmp_path, capsys):
    rewards_results.write(tmp_path)
    assert "there is no table yet" in capsys.readouterr().out
