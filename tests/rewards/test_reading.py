"""What counts as a query, as an answer and as good form, case by case."""

import pytest

from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.reading import is_well_formed, read_answer, read_query
from grpo_jax.rewards.tags import COMPACT, DAVID, SEARCH
from tests.rewards.agents import episode
from tests.rewards.helpers import HUGE

ASKS = "<think>t</think>\n<search>q</search>"
ANSWERS = "<think>t</think>\n<answer>a</answer>"
DAVID_ASKS = "t <begin_search>q</end_search>"
DAVID_ANSWERS = "t\n</think>\n\nIt is \\boxed{a}."


@pytest.mark.parametrize(
    ("turn", "query", "malformed"),
    [
        ("<search>q</search>", "q", False),
        ("<search> a\nb </search>", "a\nb", False),
        ("<search>q</search>\n", "q", False),  # what a token has past the stop
        ("<search>q</search><search>r</search>", "q", False),
        (ASKS, "q", False),
        ("prose <search>q</search>", "q", False),
        ("", "", False),
        (ANSWERS, "", False),
        ("<search></search>", "", True),
        ("<search> \n </search>", "", True),
        ("q</search>", "", True),
        ("<search>q", "", True),
        ("<search>a<search>b</search>", "", True),
        ("<search>a<answer>b</search>", "", True),
        ("<search>a<information>b</search>", "", True),
        ("<think>t <search>q</search>", "", True),
        ("<think>t</think><think><search>q</search>", "", True),
        ("</search><search>q</search>", "", True),
    ],
)
def test_query(turn, query, malformed):
    assert read_query(SEARCH, turn) == (query, malformed)
    assert read_query(COMPACT, turn) == (query, malformed)


@pytest.mark.parametrize(
    ("turn", "query", "malformed"),
    [
        (DAVID_ASKS, "q", False),
        ("<think>t <begin_search>q</end_search>", "q", False),
        ("t</think> <begin_search>q</end_search>", "", True),
        ("<begin_search> </end_search>", "", True),
        ("<begin_search>q</begin_search>", "", True),
        ("<search>q</search>", "", False),
        (DAVID_ANSWERS, "", False),
    ],
)
def test_query_in_thoughts(turn, query, malformed):
    assert read_query(DAVID, turn) == (query, malformed)


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        (ANSWERS, "a"),
        ("<answer> a b </answer>", "a b"),
        ("<answer>a</answer><answer>b</answer>", "b"),
        ("<answer></answer>", None),
        ("<answer> </answer>", None),
        ("<answer>a", None),
        ("a</answer>", None),
        ("", None),
        ("<answer>a</answer></answer>", None),
        ("<answer>a<answer>b</answer>", "b"),
        ("<answer>a<search></answer>", None),
        ("<think><answer>a</answer></think>", None),
        ("<think>t <answer>a</answer>", None),
        ("<answer>a</answer><think>t</think>", None),
        ("<answer>a</answer><search>q</search>", None),
        ("<answer>a</answer><information>d</information>", None),
        ("<information><answer>a</answer></information>", None),
        ("<information>d<answer>a</answer>", None),
    ],
)
def test_answer(turn, answer):
    assert read_answer(SEARCH, episode(SEARCH, turn)) == answer
    assert read_answer(SEARCH, episode(SEARCH, ASKS, turn)) == answer


@pytest.mark.parametrize(
    ("turn", "answer"),
    [
        (DAVID_ANSWERS, "a"),
        ("</think>\\boxed{a} \\boxed{b{c}}", "b{c}"),
        ("\\boxed{a}", None),
        ("\\boxed{a}</think>", None),
        ("</think>\\boxed{}", None),
        ("</think>\\boxed{a", None),
        ("</think>a", None),
        ("</think>\\boxed{a}<begin_search>q</end_search>", None),
    ],
)
def test_boxed_answer(turn, answer):
    assert read_answer(DAVID, episode(DAVID, turn)) == answer
    assert read_answer(DAVID, episode(DAVID, DAVID_ASKS, turn)) == answer


def test_only_the_last_turn_answers():
    early = "<answer>a</answer><search>q</search>"
    assert read_answer(SEARCH, episode(SEARCH, early, "so")) is None
    assert read_answer(SEARCH, episode(SEARCH, early)) is None


def test_neither_question_nor_observation_answers():
    stated = "is it <answer>a</answer>?"
    row = episode(SEARCH, ASKS, "so", shown=[["<answer>a</answer>"]], prompt=stated)
    assert read_answer(SEARCH, row) is None
    david = episode(DAVID, DAVID_ASKS, "so", shown=[["</think>\\boxed{a}"]])
    assert read_answer(DAVID, david) is None
    # Without a record too, and where the observation has tags that were not removed.
    raw = f"{ASKS}<information><answer>a</answer></information>"
    for text in (raw, raw.removesuffix("</information>"), f"{raw}so"):
        assert read_answer(SEARCH, Completion("q", text, "", 1, True, 0, {})) is None
    cut = f"{ASKS}<information>d</think><answer>a</answer>"
    assert read_answer(SEARCH, Completion("q", cut, "", 1, True, 0, {})) is None
    text = f"{raw}<answer>b</answer>"
    assert read_answer(SEARCH, Completion("q", text, "", 1, True, 0, {})) == "b"


def test_a_thought_that_the_prompt_begins():
    row = episode(SEARCH, "t</think><answer>a</answer>", prompt="q<think>")
    assert read_answer(SEARCH, row) == "a" and is_well_formed(SEARCH, row)
    row = episode(SEARCH, "t<answer>a</answer>", prompt="q<think>\n")
    assert read_answer(SEARCH, row) is None and not is_well_formed(SEARCH, row)


@pytest.mark.parametrize(
    "turns",
    [
        (ANSWERS,),
        (ASKS, ANSWERS),
        (ASKS, ASKS, "<answer>a</answer>\n"),
        ("\n<search>q</search>\n", " <think></think> <answer>a</answer> "),
    ],
)
def test_good_form(turns):
    assert is_well_formed(SEARCH, episode(SEARCH, *turns))


@pytest.mark.parametrize(
    "turns",
    [
        (),
        ("",),
        (ASKS,),
        (ANSWERS, ANSWERS),
        (ASKS, ASKS),
        (ASKS, f"{ANSWERS} done"),
        (ASKS, f"so {ANSWERS}"),
        (ASKS, "<answer> </answer>"),
        (ASKS, ANSWERS + ANSWERS),
        (ASKS, ANSWERS.replace("</think>", "")),
        (ASKS, f"<information>d</information>{ANSWERS}"),
        ("<search> </search>", ANSWERS),
        (f"so {ASKS}", ANSWERS),
        ("<think>t<think></think><search>q</search>", ANSWERS),
        ("<think>t</think><think>t</think><search>q</search>", ANSWERS),
        ("<search>q</search><search>q</search>", ANSWERS),
        ("<answer>a</answer><search>q</search>", ANSWERS),
    ],
)
def test_bad_form(turns):
    assert not is_well_formed(SEARCH, episode(SEARCH, *turns))


@pytest.mark.parametrize(
    ("turns", "good"),
    [
        ((DAVID_ANSWERS,), True),
        ((DAVID_ASKS, DAVID_ASKS, DAVID_ANSWERS), True),
        ((f"<think>{DAVID_ASKS}", DAVID_ANSWERS), True),
        ((DAVID_ASKS, f"<think>{DAVID_ANSWERS}"), False),
        ((f"so <think>{DAVID_ASKS}", DAVID_ANSWERS), False),
        ((DAVID_ASKS, f"{DAVID_ANSWERS}</think>"), False),
        ((f"</think>{DAVID_ASKS}", DAVID_ANSWERS), False),
        ((DAVID_ASKS, DAVID_ANSWERS.replace("{a}", "{}")), False),
        ((DAVID_ASKS, "\\boxed{a}"), False),
        ((DAVID_ASKS,), False),
        ((f"{DAVID_ASKS} so", DAVID_ANSWERS), False),
    ],
)
def test_form_with_searches_in_thoughts(turns, good):
    assert is_well_formed(DAVID, episode(DAVID, *turns)) is good


@pytest.mark.parametrize("tags", [SEARCH, DAVID])
def test_huge_texts_end_soon(tags):
    for piece in (*tags.names, "\\boxed{", "<", "x"):
        text = piece * (HUGE // len(piece))
        row = Completion("q", text, "", 1, True, 0, {}, turns=(Turn(text),))
        assert read_answer(tags, row) is None and not is_well_formed(tags, row)
        read_query(tags, text)
