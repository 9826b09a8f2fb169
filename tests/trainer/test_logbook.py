import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from grpo_jax import config as c
from grpo_jax import config_files
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import load_tokenizer
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.base import Completion, Turn, turns_of_row
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.trainer import logbook, rollout_files
from grpo_jax.trainer.substitutes import Substitute


def configuration(**changes) -> c.TrainConfig:
    policy = c.PolicyConfig(tokenizer="characters")
    return c.TrainConfig(policy=policy, **changes).seal()


def test_a_workdir_keeps_to_its_configuration(tmp_path):
    logbook.open_workdir(tmp_path, configuration())
    assert config_files.of_workdir(tmp_path) == configuration()
    more = configuration(trainer=c.TrainerConfig(steps=500))
    logbook.open_workdir(tmp_path, more)
    assert config_files.of_workdir(tmp_path).trainer.steps == 500
    watched = configuration(monitor=c.MonitorConfig(stop_above={"loss/total": 1.0}))
    logbook.open_workdir(tmp_path, watched)
    logbook.open_workdir(tmp_path, more)
    with pytest.raises(ValueError, match="config.seed was 0 and is 1.*--workdir"):
        logbook.open_workdir(tmp_path, configuration(seed=1))
    assert config_files.of_workdir(tmp_path).seed == 0


def batch():
    """Two groups of two."""
    origins = np.array(
        [
            [1, 1, 3, 3, 2, 2, 0],
            [1, 1, 2, 5, 5, 2, 2],
            [1, 2, 2, 2, 0, 0, 0],
            [1, 2, 0, 0, 0, 0, 0],
        ],
        np.uint8,
    )
    zeros = np.zeros(origins.shape, np.float32)
    trajectories = Trajectories(
        tokens=origins.astype(np.int32),
        origins=origins,
        behavior_log_probs=zeros,
        kept_log_mass=zeros,
        prompt_lengths=np.array([2, 2, 1, 1], np.int32),
        lengths=np.array([6, 7, 4, 2], np.int32),
        finished=np.array([True, True, True, False]),
    )
    prompts = [EncodedPrompt(Example(i, f"q{i}", "r"), f"q{i}", [1]) for i in (5, 9)]
    completions = [
        Completion(f"q{row // 2}", f"text {row}", "r" * 9999, 3, True, row // 2, {})
        for row in range(4)
    ]
    values = np.array([[1, np.nan], [0, 1], [0, 0], [np.nan, np.nan]])
    table = RewardTable(
        ("accuracy", "format"), values, np.array([1.0, 0.1, 0.0, np.nan])
    )
    advantages = np.array([0.5, -0.5, 0, 0], np.float32)
    tokenizer = load_tokenizer("search-characters")
    return rollout_files.Batch(
        prompts,
        completions,
        trajectories,
        table,
        advantages,
        tokenizer,
    )


def rows(tmp_path, prompts_written, whole=None):
    (tmp_path / "rollouts").mkdir(exist_ok=True)
    whole = whole or batch()
    shown = whole._replace(prompts=whole.prompts[:prompts_written])
    rollout_files.write_rollouts(tmp_path, 3, shown)
    path = tmp_path / "rollouts" / "000003.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_replaces_a_row_is_written_behind_its_group(tmp_path):
    (tmp_path / "rollouts").mkdir()
    whole = batch()
    other = Completion("q0", "better", "r", 3, True, 0, {})
    row = jax.tree.map(lambda x: x[:1], whole.trajectories)
    values = np.array([1.0, 1.0])
    substitute = Substitute(1, row, other, values, 1.1, "written by an expert")
    rollout_files.write_rollouts(tmp_path, 3, whole._replace(substitutes=[substitute]))
    lines = (tmp_path / "rollouts" / "000003.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(each["group"], each["sample"]) for each in found] == [
        *((0, 0), (0, 1), (0, 2)),
        *((1, 0), (1, 1)),
    ]
    # The place's advantage is that of the row which was trained on.
    assert [each["advantage"] for each in found] == [0.5, None, -0.5, 0, 0]
    assert found[2]["note"] == "written by an expert, in place of sample 1"
    assert found[2]["completion"] == "better" and found[2]["reward"] == 1.1
    assert found[2]["spans"] == found[0]["spans"]
    assert not any("note" in each for each in found if each is not found[2])


def test_rollouts_say_who_wrote_which_tokens(tmp_path):
    written = rows(tmp_path, 2)
    assert [row["spans"] for row in written] == [
        [["guidance", 0, 2], ["sampled", 2, 4]],
        [["sampled", 0, 1], ["observation", 1, 3], ["sampled", 3, 5]],
        [["sampled", 0, 3]],
        [["sampled", 0, 1]],
    ]
    assert Origin.GUIDANCE.name.lower() == "guidance"
    assert written[0]["rewards"] == {"accuracy": 1.0, "format": None}
    assert written[3]["reward"] is None
    assert written[3]["reference"] == "r" * 2000
    assert [(row["prompt_id"], row["sample"]) for row in written] == [
        (5, 0),
        (5, 1),
        (9, 0),
        (9, 1),
    ]


def test_an_episode_says_where_its_turns_are_and_what_it_looked_for(tmp_path):
    whole = batch()
    begin, end, a, b = whole.tokenizer.encode("<search></search>ab")
    tokens = whole.trajectories.tokens.copy()
    tokens[1, 2:7] = begin, a, b, end, 1  # of which the last is no text
    turns = Turn("<search>", "q", ("4", "7")), Turn("</search>")
    columns = {
        "evidence": (("4",), ()),
        "gold_titles": ("Four", "Five"),
        "golds": ("r",),
    }
    episode = dataclasses.replace(
        whole.completions[1],
        text="<search>ab</search>",
        turns=turns,
        columns=columns,
    )
    completions = [whole.completions[0], episode, *whole.completions[2:]]
    trajectories = whole.trajectories.replace(tokens=tokens)
    changed = whole._replace(completions=completions, trajectories=trajectories)
    plain, row, *_ = rows(tmp_path, 2, changed)
    assert row["spans"] == [
        ["sampled", 0, 1],
        ["observation", 1, 3],
        ["sampled", 3, 5],
    ]
    assert row["text_spans"] == [
        ["sampled", 0, 8],
        ["observation", 8, 10],
        ["sampled", 10, 19],
    ]
    assert row["evidence"] == [["4"], []]
    assert row["gold_titles"] == ["Four", "Five"]
    assert turns_of_row(row) == turns
    assert "golds" not in row
    assert not {"turns", "text_spans", "evidence", "gold_titles", "note"} & set(plain)


def test_fewer_groups_can_be_written(tmp_path):
    assert [row["group"] for row in rows(tmp_path, 1)] == [0, 0]


def test_a_batch_that_tripped_is_written_as_rollouts_are(tmp_path):
    rollout_files.write_tripped(tmp_path, "000003_rule.jsonl", 3, batch())
    written = (tmp_path / "tripped" / "000003_rule.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows(tmp_path, 2)
    assert not (tmp_path / "rollouts" / "000003_rule.jsonl").exists()


def test_json_is_whole_and_has_no_nan(tmp_path):
    path = tmp_path / "x.json"
    logbook.write_json(path, {"a": {"b": float("nan"), "c": np.float32(2)}})
    assert json.loads(path.read_text()) == {"a": {"b": None, "c": 2.0}}
    assert [each.name for each in tmp_path.iterdir()] == ["x.json"]


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left.*--workdir") as error:
        logbook.open_workdir(tmp_path, configuration())
    assert str(tmp_path) in str(error.value)
    assert dataclasses.is_dataclass(configuration())
