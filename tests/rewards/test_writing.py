"""Rewards of how a completion is written: repetition, steps, script."""

import pytest

from grpo_jax.choices import Script
from grpo_jax.rewards.language import language
from grpo_jax.rewards.reasoning import reasoning_steps
from grpo_jax.rewards.repetition import repetition_penalty
from tests.rewards.helpers import check_bounds, completion


@pytest.mark.parametrize(
    ("text", "ngram", "penalty", "value"),
    [
        ("", 3, -1.0, 0),
        ("a b", 3, -1.0, 0),
        ("a b c", 3, -1.0, 0),
        ("a a a a a", 2, -1.0, -0.75),
        ("this is a this is a test", 2, -1.0, -0.3333),
        ("this is a this is a test", 3, -2.0, -0.4),
        ("word word word word", 3, -1.0, -0.5),
        ("A B C A B C", 3, -1.0, -0.25),
        ("A B C A B C E F G A B C A B C", 3, -1.0, -0.3846),
        ("wait Wait WAIT wAIT wait Wait WAIT wAIT", 3, -1.0, -0.8333),
        ("x " * 100, 3, -1.0, -0.9898),
        ("a a a a a", 2, 0.0, 0),
    ],
)
def test_repetition(text, ngram, penalty, value):
    reward = repetition_penalty(ngram=ngram, penalty=penalty)
    assert reward([completion(text)]) == [pytest.approx(value, abs=5e-5)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 0),
        ("Step 1: a\nStep 2: b\nStep 3: c", 1),
        ("First, x. Finally, y", 0.6667),
        ("1. a\n2. b\n3. c", 0.3333),
        ("- a\n- b\n- c", 0.6667),
        ("\n- a\n- b\n- c", 1),
        ("* a\n* b\n* c", 0.6667),
        ("step 1: lower", 0),
        ("Step 1: a" * 9, 1),
    ],
)
def test_reasoning_steps(text, value):
    assert reasoning_steps([completion(text)]) == [pytest.approx(value, abs=5e-5)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", 1),
        ("The answer is 4.", 1),
        ("所以答案是四", 0),
        ("Wait, 所以 x=2", 0.7143),
        (r"Let $\text{这}$ be 1, so done", 1),
        ("angle θ is 30 degrees", 1),
        ("Ответ: 5", 0),
        (r"\boxed{42}", 1),
        ("abcd这是四个", 0.5),
        ("Donc la réponse est 4", 1),
        # LaTeX of every kind, and what only looks like it.
        ("$$ 这 $$ \\[ 这 \\\\[2pt] 这 \\] \\( 这 \\) ok", 1),
        (r"\text{这是}", 0),
        (r"所以 \boxed{4}", 0),
        ("$5 这 or $6 这", 0.5),
        (r"\( 这 ab", 0.6667),
        (r"\\(这ab\\)", 0.6667),
        # Letters of mathematics are neutral, in every form.
        ("π ε Ω 𝐱 ℝ ℎ 𝛼 µ", 1),
        ("这 π", 0),
        ("a\u0301 é ß ı ª", 1),
        ("\u212b\u212a", 1),
        ("한국어 ab", 0.4),
    ],
)
def test_language(text, value):
    reward = language(Script.LATIN)
    assert reward([completion(text)]) == [pytest.approx(value, abs=5e-5)]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (Script.LATIN, "ab"),
        (Script.CYRILLIC, "да"),
        (Script.ARABIC, "نعم"),
        (Script.DEVANAGARI, "नमस"),
        (Script.HANGUL, "네네"),
        (Script.CJK, "所以"),
    ],
)
def test_every_script(script, text):
    for each in Script:
        assert language(each)([completion(text)]) == [float(each is script)]


def test_any_text_has_a_value_soon():
    words = ("wait ", "a b\n", "\u3000", "\u0301")
    check_bounds(repetition_penalty(ngram=3, penalty=-1.0), -1, 0, *words)
    steps = ("Step 1", "Step 1:", "1.", "\n-", "\n\n", "First,", "٣.")
    check_bounds(reasoning_steps, 0, 1, *steps)
    latex = ("\\", "\\(", "\\)", "\\[", "\\]", "$", "$$", "$ ", "$1", "\\a", "这", "\n")
    check_bounds(language(Script.LATIN), 0, 1, *latex)
