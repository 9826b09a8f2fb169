import pytest

from grpo_jax.rewards import extraction
from grpo_jax.rewards.base import Completion
from grpo_jax.rewards.format import (
    boxed_format,
    code_format,
    open_r1_format,
    open_r1_tag_count,
    open_rs_format,
    open_rs_tag_count,
    think_answer_format,
)
from tests.rewards.helpers import check_bounds


def value(reward, text, prompt="Question."):
    return reward([Completion(prompt, text, "", 1, True, 0, {})])[0]


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("<think>r</think><answer>4</answer>", "q", 1),
        (" <think>\nr\n</think>\n\n<answer>\n4\n</answer>\n", "q", 1),
        ("<think></think><answer>4</answer>", "q", 1),
        ("", "q", 0),
        ("r</think><answer>4</answer>", "q", 0),
        ("r</think><answer>4</answer>", "q\n<think>\n", 1),
        ("<think>r</think><answer>4</answer>", "q<think>", 0),
        ("<think>r</think><answer>4</answer>", "Write <think> first.", 1),
        ("r</think><answer>4</answer>", "Write <think> first.", 0),
        ("<think>r</think><answer> \n</answer>", "q", 0),
        ("junk <think>r</think><answer>4</answer>", "q", 0),
        ("<think>r</think>junk<answer>4</answer>", "q", 0),
        ("<think>r</think><answer>4</answer>junk", "q", 0),
        ("<think>r</think><think>s</think><answer>4</answer>", "q", 0),
        ("<think>r</think><answer>3</answer><answer>4</answer>", "q", 0),
        ("<think>r</think><answer>4", "q", 0),
        ("<answer>4</answer><think>r</think>", "q", 0),
        ("<think>r<answer>4</answer></think>", "q", 0),
        ("<think>r</answer></think><answer>4", "q", 0),
        ("<THINK>r</THINK><answer>4</answer>", "q", 0),
    ],
)
def test_think_answer_format(text, prompt, expected):
    assert value(think_answer_format, text, prompt) == expected


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        (r"So \boxed{4}.", "q", 1),
        (r"<think>r</think> \boxed{\frac{1}{2}}", "q", 1),
        (r"r</think> \boxed{4}", "q<think>", 1),
        (r"r</think> \boxed{4}", "q", 1),
        (r"r \boxed{4}", "q<think>", 0),
        (r"<think>r \boxed{4}", "q", 0),
        (r"<think>\boxed{4}</think> four", "q", 0),
        (r"<think>a</think>b</think>\boxed{4}", "q", 0),
        (r"\boxed{}", "q", 0),
        (r"\boxed{ }", "q", 0),
        (r"\boxed{4", "q", 0),
        (r"\boxed{\frac{1}{2}", "q", 0),
        ("4", "q", 0),
    ],
)
def test_boxed_format(text, prompt, expected):
    assert value(boxed_format, text, prompt) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{1} then \boxed{}", ""),
        (r"\boxed{\boxed{3} + 1}", r"\boxed{3} + 1"),
        (r"{ \boxed{5} } }", "5"),
        (r"\fbox {6}", "6"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{(1, 2\}}", r"(1, 2\}"),
        ("no box", None),
    ],
)
def test_last_box(text, expected):
    assert extraction.last_box(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 4.", "4"),
        ("The final answer is: $\\frac{1}{2}$. I hope it is correct.", r"\frac{1}{2}"),
        ("**Answer:** 1,800 dollars per month.", "1,800"),
        ("#### -12", "-12"),
        ("#### $18.50", "18.50"),
        ("So the answer to this question is $18, not $20.", "18"),
        ("The answer is $4$", "4"),
        ("Final answer:\n\\[\n2\\sqrt{3}\n\\]", r"2\sqrt{3}"),
        ("The answer is 2 pi.", "2 pi"),
        ("The answer is 3 or 4.", "3 or 4"),
        ("The answer is 3, 4", "3, 4"),
        ("The answer is x + 1. Done", "x + 1"),
        ("The answer is 3. No: the answer is 5", "5"),
        ("#### 3\nThe answer is 5", "5"),
        ("It takes 2+1=3 bolts.\nA: 3\n", "3"),
        ("Answer: 4\n A: $1,218 left", "1,218"),
        ("A: 4\nB: 5\nThe answer is 5", "5"),
        ("A: 4\nB: 5", None),  # choices
        ("USA: 4", None),
        ("<answer>3</answer> <answer> $7$ </answer>", "7"),
        ("<answer>The answer is 7 apples.</answer>", "7"),
        ("<answer>7", None),
        (r"<answer>7</answer> \boxed{8}", "8"),
        (r"<answer>so \boxed{7}</answer>", "7"),
        (r"<think>\boxed{1}</think> The answer is 2", "2"),
        (r"<think>the answer is 1", None),
        ("r</think>a</think> The answer is 2", "2"),
        ("The sum is 4, so 4", None),
        ("Answering 4 is right", None),
        ("", None),
    ],
)
def test_final_answer(text, expected):
    assert extraction.final_answer(text) == expected


BLOCK = "```python\nprint(1)\n```\n"


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        (BLOCK, "q", 1),
        (f"Here it is:\n{BLOCK}It prints 1.", "q", 1),
        (f"<think>r</think>{BLOCK}", "q", 1),
        (f"<think>{BLOCK}</think>{BLOCK}", "q", 1),
        (f"r</think>{BLOCK}", "q <think>\n", 1),
        (f"```\n1\n```\n{BLOCK}", "q", 1),
        (BLOCK * 2, "q", 0),
        (f"<think>{BLOCK}", "q", 0),
        (f"<think>{BLOCK}</think>", "q", 0),
        (f"a</think>b</think>{BLOCK}", "q", 0),
        ("```\nprint(1)\n```", "q", 0),
        ("```python\nprint(1)\n", "q", 0),
        ("```python print(1)```", "q", 0),
        ("print(1)", "q", 0),
        ("", "q", 0),
    ],
)
def test_code_format(text, prompt, expected):
    assert value(code_format, text, prompt) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("```python\na\n```\n```py\nb\n```", ["a\n", "b\n"]),
        ("<answer>```Python \r\na\n  ```</answer>", ["a\n"]),
        ("```python\na\n```python\nb\n```", ["b\n"]),
        ("```python\nx = '```'\n```", ["x = '```'\n"]),
        ("```python\na\n```\n```python\nb\n", ["a\n"]),
        ("```json\n{}\n```", []),
        ("```python\n" * 50_000, []),
    ],
)
def test_python_blocks(text, expected):
    assert extraction.python_blocks(text) == expected


CANONICAL = "<think>\nr\n</think>\n<answer>\n4\n</answer>"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, 0, 0)),
        ("r\n</think>\n\nx", (1, 0, 0.5, 0.25)),
        ("r</think>\nx", (0, 0, 0, 0)),
        ("r\n</think>", (0, 0, 0, 0)),
        ("r\n</think>\ns\n</think>\nx", (0, 0, 0, 0)),
        (CANONICAL, (1, 1, 1, 1)),
        (CANONICAL.removeprefix("<think>\n"), (1, 0, 0.5, 0.75)),
        (CANONICAL + "\ntrailing", (1, 1, 1, 1)),
        (CANONICAL.replace("\n", ""), (0, 0, 0, 0)),
        ("junk\n" + CANONICAL, (1, 0, 1, 1)),
        # Beyond the published examples.
        (CANONICAL + "trailing", (1, 0, 1, 1)),
        ("<think>\n</think>\n<answer>\n</answer>", (1, 0, 1, 1)),
        ("<think>\n\n</think>\n<answer>\n\n</answer>", (1, 1, 1, 1)),
        (CANONICAL + CANONICAL[7:], (0, 1, 0.5, 0.25)),
    ],
)
def test_formats_of_open_rs_and_open_r1(text, expected):
    rewards = open_rs_format, open_r1_format, open_rs_tag_count, open_r1_tag_count
    assert tuple(value(reward, text) for reward in rewards) == expected


def test_any_text_has_a_format_soon():
    tags = ("<think>\n", "\n</think>\n<answer>\n", "\n</answer>", "\n</think>\n", "a")
    for reward in (open_rs_format, open_rs_tag_count, open_r1_tag_count):
        check_bounds(reward, 0, 1, *tags)
    check_bounds(open_r1_format, 0, 1, *tags, "<think>\n\n</think>\n<answer>\n")
