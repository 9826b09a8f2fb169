"""Completions that are kept while they are made."""

import json

import pytest

from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.rewards.base import Completion
from grpo_jax.trainer.journal import Journal

SETTINGS = {"weights": "abc", "top_p": 0.95, "max_completion_tokens": 9}
PROMPTS = [
    EncodedPrompt(Example(id, f"{id}?", f"{id}"), f"Q: {id}?", [1, 2, id])
    for id in (7, 3, 5, 9)
]


class Stopped(Exception):
    pass


class Policy:
    """Completes problems, and stops at the n-th call."""

    def __init__(self, stop_at: int = 0):
        self.calls, self._stop_at = [], stop_at

    def __call__(self, prompts):
        self.calls.append([prompt.example.id for prompt in prompts])
        if len(self.calls) == self._stop_at:
            raise Stopped
        return [
            Completion(prompt.text, text(prompt, s), "", 4 + s, bool(s), 0, {})
            for prompt in prompts
            for s in range(2)
        ]


def text(prompt, sample) -> str:
    return f"{prompt.example.id} é\n\u2028 {sample}"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Parts of one problem, so that there is something to lose."""
    monkeypatch.setattr("grpo_jax.trainer.journal._PART_ROWS", 2)


def fill(journal, policy, max_rows=1):
    return journal.fill(PROMPTS, 2, max_rows, policy)


def said(capsys) -> str:
    return capsys.readouterr().out


def test_the_completions_are_those_that_were_made(tmp_path, capsys):
    journal, policy = Journal(tmp_path / "x.json", SETTINGS), Policy()
    found = fill(journal, policy)
    assert policy.calls == [[7], [3], [5], [9]]
    assert [each.group for each in found] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [each.text for each in found[2:4]] == [text(PROMPTS[1], s) for s in (0, 1)]
    assert (found[2].prompt, found[2].reference) == ("Q: 3?", "3")
    assert found[2].max_tokens == 9
    assert [(each.num_tokens, each.finished) for each in found[:2]] == [
        (4, False),
        (5, True),
    ]
    assert "x.jsonl: 4 of 4 problems" in said(capsys)
    lines = journal.path.read_text().split("\n")[:-1]
    assert json.loads(lines[0]) == {"settings": SETTINGS} and len(lines) == 9
    journal.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("torn", ["", '{"problem": 5, "sam', "\x00"])
def test_a_stop_loses_the_part_that_was_being_made(tmp_path, capsys, torn):
    whole = fill(Journal(tmp_path / "whole.json", SETTINGS), Policy())
    journal = Journal(tmp_path / "x.json", SETTINGS)
    with pytest.raises(Stopped):
        fill(journal, Policy(stop_at=3))
    with journal.path.open("a") as file:
        file.write(torn)  # what a full disk leaves of a line
    again = Policy()
    assert fill(Journal(tmp_path / "x.json", SETTINGS), again) == whole
    assert again.calls == [[5], [9]]
    assert "x.jsonl goes on with 4 completions that are known" in said(capsys)


def test_other_settings_begin_anew_and_say_so(tmp_path, capsys):
    fill(Journal(tmp_path / "x.json", SETTINGS), Policy())
    policy = Policy()
    fill(Journal(tmp_path / "x.json", SETTINGS | {"top_p": 1.0}), policy)
    assert len(policy.calls) == 4
    assert "x.jsonl begins anew: top_p was 0.95 and is 1.0" in said(capsys)
    fill(Journal(tmp_path / "x.json", SETTINGS | {"top_p": 1.0}), again := Policy())
    assert again.calls == []


def test_parts_have_whole_problems_and_enough_rows(tmp_path):
    policy = Policy()
    fill(Journal(tmp_path / "x.json", SETTINGS), policy, max_rows=9)
    assert policy.calls == [[7, 3, 5, 9]]
    policy = Policy()
    fill(Journal(tmp_path / "y.json", SETTINGS), policy, max_rows=2)
    assert policy.calls == [[7, 3], [5, 9]]


def test_a_finished_evaluation_is_known(tmp_path, capsys):
    whole = fill(journal := Journal(tmp_path / "x.json", SETTINGS), Policy())
    rows = journal.path.read_text().partition("\n")[2]
    journal.discard()
    (tmp_path / "x.jsonl").write_text(rows)
    (tmp_path / "x.json").write_text(json.dumps({"settings": SETTINGS}))
    policy = Policy()
    assert fill(Journal(tmp_path / "x.json", SETTINGS), policy) == whole
    assert policy.calls == [] and "8 completions that are known" in said(capsys)
    # One of an earlier version says nothing of its settings.
    (tmp_path / "x.jsonl.partial").unlink()
    (tmp_path / "x.json").write_text("{}")
    fill(Journal(tmp_path / "x.json", SETTINGS), policy)
    assert len(policy.calls) == 4 and "weights was None and is abc" in said(capsys)


def test_a_damaged_file_is_named(tmp_path):
    fill(journal := Journal(tmp_path / "x.json", SETTINGS), Policy())
    journal.path.write_text(journal.path.read_text().replace('{"problem"', "{", 1))
    with pytest.raises(
        ValueError, match=r"x.jsonl.partial is damaged .*: remove it to"
    ):
        Journal(tmp_path / "x.json", SETTINGS)
    (tmp_path / "y.json").write_text("")
    (tmp_path / "y.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"y.json is damaged"):
        Journal(tmp_path / "y.json", SETTINGS)
