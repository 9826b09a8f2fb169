"""Given trajectories go through the engine, and it remembers them token by token."""

import json

import pytest

from benchmarks import replay
from grpo_jax import choices
from grpo_jax.rollout.session import Session
from grpo_jax.tasks.expert_files import read_experts

R1_SEARCHER = (
    "home of Yan Penn <|begin_of_query|>Yan Penn home<|end_of_query|>\n\n"
    "<|begin_of_documents|>\n(1)Title: Yan Penn Text: home New Wharf\n"
    "(2)Title: Ada Fox Text: home Old Rook\n<|end_of_documents|>\n\n"
    "mayor of New Wharf <|begin_of_query|>New Wharf mayor<|end_of_query|>\n\n"
    "<|begin_of_documents|>\n(1)Title: New Wharf Text: mayor Lea Fox\n"
    "<|end_of_documents|>\n\n</think>\n\n<answer> Lea Fox </answer>"
)
REACT = (
    "Thought: the job of Ada Fox\nAction: search[Ada Fox job]\n"
    "Observation: home Old Rook; job Zed Inn\nAction: finish[Zed Inn]\n"
)
ROWS = [
    {"question": "mayor of home of Yan Penn?", "answer": "Lea Fox"},
    {"question": "job of Ada Fox?", "answer": "Zed Inn"},
]


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory):
    path = tmp_path_factory.mktemp("experts") / "experts.jsonl"
    texts = (R1_SEARCHER, REACT)
    rows = [{**row, "trajectory": text} for row, text in zip(ROWS, texts, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_experts(str(path), drop=False).kept


@pytest.fixture(scope="module")
def model():
    return replay.open_model(
        "tests/fixtures/tiny_qwen2",
        "search-characters",
        dtype=choices.Dtype.FLOAT32,
        max_tokens=240,
        max_rows=8,
        temperature=1.0,
    )


def test_what_is_drawn_behind_splices_is_what_one_pass_says(model, trajectories):
    # Three rows that begin alike, and one more.
    found = replay.replay(
        model, [*trajectories, *trajectories], choices.Tags.COMPACT, 9
    )
    assert (found["trajectories"], found["splices"]) == (4, 6)
    assert 6 * 4 < found["tokens"]["sampled"] <= 10 * 4
    assert found["log_prob_gap_max"] < 1e-4
    assert found["log_prob_mean"] < -0.5
    # Each given token was shown once: nothing was computed again.
    given = sum(found["tokens"][name] for name in ("prompt", "expert", "observation"))
    assert given - 4 <= found["shown_to_the_model"] <= given + found["splices"]


def test_a_token_that_was_not_remembered_is_seen(model, trajectories, monkeypatch):
    plain = Session.append

    def swapped(self, row, tokens, *origin):
        plain(self, row, tokens, *origin)
        # The row says something else than the cache will be shown.
        self.texts.cached[row] += len(tokens) > 5

    monkeypatch.setattr(Session, "append", swapped)
    found = replay.replay(model, trajectories, choices.Tags.COMPACT, 2)
    assert found["log_prob_gap_max"] > 1e-2
