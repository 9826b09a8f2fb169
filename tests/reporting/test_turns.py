"""Episodes turn by turn: what is read from a row, and what pages and terminals say."""

import io
import json

import pytest
from rich.console import Console

from grpo_jax.environments.base import Notice
from grpo_jax.reporting import groups, terminal
from grpo_jax.reporting.page import page
from grpo_jax.reporting.turns import gold_documents, turns_of
from grpo_jax.reporting.workdir import read_run
from grpo_jax.rewards.base import Turn
from tests.reporting import episodes
from tests.reporting.episodes import asked, notice, row
from tests.reporting.test_page import EVIL, Page


def embedded(path, *rows):
    """The JSON that a page of these completions carries, and the page."""
    (path / "rollouts").mkdir(exist_ok=True)
    (path / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 1.0}\n')
    weights = {"weights": {"david": 1.0, "exact_match": 0.0}}
    config = {"reward": weights, "objective": {"mask_truncated": True}}
    (path / "config.json").write_text(json.dumps(config))
    lines = "".join(json.dumps(each) + "\n" for each in rows)
    (path / "rollouts" / "1.jsonl").write_text(lines)
    text = page([read_run(path)], path)
    [run] = Page(text).groups
    return run, text


def test_an_expert_in_the_world():
    question = episodes.example(hops=2)
    steps = episodes.expert(question)
    found = turns_of(row(question, *steps))
    assert [turn["parts"] for turn in found] == [
        [["sampled", turn.text]] for turn, _ in steps
    ]
    assert [turn["observation"] for turn in found] == [shown for _, shown in steps]
    assert [turn["query"] for turn in found] == [turn.query for turn, _ in steps]
    first, second = question.columns["gold_titles"]
    assert [turn["documents"] for turn in found] == [
        [[first, True]],
        [[second, True]],
        [],
    ]
    assert [turn["coverage"] for turn in found] == [
        "1 of 2 gold documents",
        "2 of 2 gold documents",
        "2 of 2 gold documents",
    ]
    assert not any(turn["marks"] for turn in found)


def test_a_document_counts_once_and_others_do_not():
    question = episodes.example(hops=1)
    [[gold]] = question.columns["evidence"]
    steps = [
        (asked("a", "no", "x"), "N"),
        (asked("b", gold), "G"),
        (asked("c", gold), "G"),
    ]
    found = turns_of(row(question, *steps, (Turn("end"), "")))
    none, one = "0 of 1 gold document", "1 of 1 gold document"
    assert [turn["coverage"] for turn in found] == [none, one, one, one]
    assert found[0]["documents"] == [["no", False], ["x", False]]


def test_what_went_wrong_is_marked():
    question = episodes.example(hops=1)
    wrong = Turn("<search></search>", malformed=True)
    many = Turn("<search>more</search>")
    failed = asked("q", failed=True)

    def marks(*steps):
        return [turn["marks"] for turn in turns_of(row(question, *steps))]

    unread, none_left = ["query could not be read"], ["no call was left"]
    assert marks(
        notice(wrong, Notice.MALFORMED), notice(many, Notice.LAST), (Turn("a"), "")
    ) == [unread, none_left, []]
    assert marks(notice(wrong, Notice.LAST), (wrong, "")) == [unread, unread]
    assert marks((failed, "")) == [["retrieval failed, so there is no reward"]]
    assert marks((asked("q"), "")) == [["no room for what it asked"]]


def test_what_others_wrote_in_a_turn_is_told_apart():
    spans = [["guidance", 0, 2], ["sampled", 2, 3], ["observation", 3, 5]]
    found = turns_of(
        {
            "completion": "abcde",
            "text_spans": [*spans, ["forced", 5, 5]],
            "turns": [{"text": "abc", "query": "c"}, {"text": ""}],
        }
    )
    assert found[0]["parts"] == [["guidance", "ab"], ["sampled", "c"]]
    assert found[1]["parts"] == [["forced", ""]]
    assert (found[0]["observation"], found[0]["coverage"]) == ("de", "")


def test_gold_documents_that_a_corpus_lacks_have_a_name():
    row = {"evidence": [["7", "8"], []]}
    assert [name for name, _ in gold_documents(row)] == [
        "7",
        "one that the corpus lacks",
    ]
    row["gold_titles"] = ["Seven", "Nine"]
    assert gold_documents(row) == [("Seven", ["7", "8"]), ("Nine", [])]
    assert gold_documents({}) == gold_documents({"evidence": 3}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"text_spans": None},
        {"text_spans": [["sampled", 0, "x"], 3]},
        {"turns": None},
        {"turns": [3]},
        {"turns": [{}]},
        {"turns": [{}], "text_spans": None},
    ],
)
def test_a_row_that_does_not_say_where_turns_are_is_one_text(tmp_path, change):
    question = episodes.example(hops=2)
    whole = row(question, *episodes.expert(question)) | change
    assert turns_of(whole) == []
    run, _ = embedded(tmp_path, whole)
    [shown] = run["steps"][0]["groups"][0]["rows"]
    assert shown["text"] == whole["completion"]
    assert "turns" not in shown


def test_odd_types_in_a_turn_do_not_stop_the_report(tmp_path):
    odd = {
        "completion": 3,
        "text_spans": [["sampled", 0, 1]],
        "turns": [{"query": 3, "document_ids": 4}],
        "evidence": [3, [4]],
        "gold_titles": [None],
        "note": 3,
    }
    run, _ = embedded(tmp_path, odd)
    [shown] = run["steps"][0]["groups"][0]["rows"]
    assert shown["turns"][0]["query"] == "3"
    assert shown["note"] == "3"


def test_a_page_has_turns_weights_and_notes(tmp_path):
    question = episodes.example(hops=2)
    steps = episodes.expert(question)
    note = "an expert's trajectory took its place"
    run, _ = embedded(
        tmp_path,
        row(question, *steps),
        row(question, *steps, sample=1, advantage=None, note=note),
    )
    assert run["weights"] == {"david": 1.0, "exact_match": 0.0}
    assert run["mask_truncated"] is True
    [group] = run["steps"][0]["groups"]
    assert group["golds"] == list(question.columns["gold_titles"])
    first, second = group["rows"]
    assert len(first["turns"]) == 3
    assert (first["text"], second["note"]) == ("", note)
    assert "note" not in first


def test_what_agents_see_and_ask_is_only_text(tmp_path):
    question = episodes.example(hops=1)
    steps = [(asked(EVIL, EVIL), EVIL), (Turn(EVIL), "")]
    evil = row(question, *steps, note=EVIL, gold_titles=[EVIL])
    run, text = embedded(tmp_path, evil)
    assert [tag for tag, _ in Page(text).elements].count("script") == 2
    assert "<img" not in text
    [shown] = run["steps"][0]["groups"][0]["rows"]
    assert shown["turns"][0]["observation"] == EVIL


def test_long_observations_are_cut_before_what_was_written(tmp_path):
    question = episodes.example(hops=1)
    steps = [(asked(f"q{i}", "x"), "o" * 5000 + "end") for i in range(4)]
    run, _ = embedded(tmp_path, row(question, *steps, (Turn("<answer>"), "")))
    [shown] = run["steps"][0]["groups"][0]["rows"]
    observations = [turn["observation"] for turn in shown["turns"][:-1]]
    assert all(1900 < len(text) < 2040 for text in observations)
    assert all(text.endswith("end") for text in observations)
    assert [turn["query"] for turn in shown["turns"]] == ["q0", "q1", "q2", "q3", ""]
    assert shown["turns"][0]["parts"] == [["sampled", "<search>q0</search>"]]
    assert "8,000 characters" in run["left_out"]


def test_episodes_fill_a_page_no_more_than_other_completions(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "MAX_CHARACTERS", 4000)
    question = episodes.example(hops=1)
    steps = [(asked(f"q{i}", "x"), "o" * 900) for i in range(4)]
    rows = [row(question, *steps, (Turn("a" * 900), ""), sample=i) for i in range(8)]
    run, _ = embedded(tmp_path, *rows)
    [group] = run["steps"][0]["groups"]
    of_a_text = 4000 // 9  # eight completions and a prompt
    said_of_cuts = 5 * len("\n\n[… 999 characters …]\n\n")
    for shown in group["rows"]:
        parts = [turn["observation"] for turn in shown["turns"]]
        parts += [text for turn in shown["turns"] for _, text in turn["parts"]]
        assert sum(map(len, parts)) <= of_a_text + said_of_cuts
        assert sum("characters" in part for part in parts) == 5


def said(row) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(terminal.sample_text(row))
    return console.file.getvalue()  # pyright: ignore


def test_a_terminal_shows_a_line_of_an_observation():
    question = episodes.example(hops=2)
    steps = episodes.expert(question)
    long = [(turn, shown and f"{shown}\n" * 50) for turn, shown in steps]
    lines = said(row(question, *long)).splitlines()
    assert lines[2:4] == steps[0][0].text.splitlines()
    assert lines[4].startswith("  1 of 2 gold documents: <information>Document 1")
    assert lines[4].endswith("…") and len(lines[4]) <= 80
    assert lines[5] == steps[1][0].text.splitlines()[0]
    assert lines[-1] == steps[-1][0].text.splitlines()[-1]


def test_a_terminal_shows_what_went_wrong_and_no_escapes():
    question = episodes.example(hops=1)
    wrong = notice(Turn("<search>", malformed=True), Notice.MALFORMED)
    text = said(row(question, wrong, (asked("q", "x"), "a\x1b[2Jb"), (Turn("c"), "")))
    assert "  query could not be read: <information>The query could not" in text
    assert "\x1b" not in text and "0 of 1 gold document: a�[2Jb" in text


@pytest.mark.parametrize("spans", [(0, 2, 5), (1, 2, 6), (0, 7, 6)])
def test_spans_that_are_not_all_of_a_text_are_not_used(spans):
    start, middle, end = spans
    row = {"completion": "abcdef", "turns": [{}, {}]}
    pieces = [["sampled", start, middle], ["observation", middle, end]]
    assert turns_of(row | {"text_spans": pieces}) == []
    assert turns_of(row | {"text_spans": [["sampled", 0, 2], ["observation", 2, 6]]})


def test_an_older_row_of_one_turn_keeps_its_text():
    row = {"completion": "a", "turns": [{"text": "a"}], "spans": [["sampled", 0, 1]]}
    assert turns_of(row) == []
    assert turns_of(row | {"text_spans": [["sampled", 0, 1]]})
