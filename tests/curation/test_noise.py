"""What cannot be graded fairly, by its signs."""

import pytest

from grpo_jax.curation.noise import Noise, noise
from tests.curation.helpers import problem, reasons

NOISY = {
    Noise.MULTI_PART: [
        ("Let $f(x)=x^2$. (a) Find $f(2)$. (b) Find $f(3)$.", "4"),
        ("(1) Determine $a$; (2) Determine $b$.", "4"),
        ("i) What is x?\nii) What is y?", "4"),
        ("Solve both.", "(a) 3, (b) 4"),
        ("$(1)$ Find $C$. $(2)$ If $b=f(2)$ (see above), then $c=2$; find $a$.", "4"),
    ],
    Noise.PROOF: [
        ("Prove that $n$ is even.", "1"),
        ("Let n be odd. Show that n+1 is even.", "1"),
        ("Prove: 1 < 2.", "1"),
    ],
    Noise.DRAWING: [
        ("[asy] draw((0,0)--(1,1)); [/asy] How long is it?", "1"),
        ("How long is AB, as shown? [asy] draw((0,0)--(1,1)); [/asy]", "1"),
    ],
    Noise.FIGURE: [
        ("How long is AB, as shown in the figure?", "1"),
        ("In the diagram below, find x.", "1"),
        ("The circles shown below touch. Find r.", "1"),
        ("![](a.png) Find x.", "1"),
        ("In the $5 \\times 5$ grid shown, how many cells are black?", "1"),
    ],
    Noise.LINK: [("See https://example.org/1.png. Find x.", "1")],
    Noise.CHOICES: [
        ("Which one?", "B"),
        ("Which one?", r"\text{(C)}"),
        ("Which ones?", "A, C"),
        (r"How many? $\textbf{(A)}\ 1 \textbf{(B)}\ 2 \textbf{(C)}\ 3$", "2"),
        ("How many? A) $1$ B) $2$ C) $3$", "2"),
        ("How many?\nA) 1\nB) 2\nC) 3", "2"),
        ("How many? - **A)** 1 - **B)** 2 - **C)** 3", "2"),
    ],
    Noise.LONG_ANSWER: [("Find x.", "1" * 101)],
}
CLEAN = [
    ("2. Find x.", "1"),
    (r"If $f(1)=3$ and $f_{0}(2)=5$, find $f(3)$ and \sin(2), how odd.", "1"),
    ("1. Find x in 2. How odd.", "1"),
    ("What is the area of the figure with corners (0, 0), (1, 0) and (0, 1)?", "1/2"),
    ("What is $f(a)$ where $f(b)=b$?", "a"),
    ("Find all $f$ with (a) $f(1)=1$ and (b) $f$ is even.", "x^2"),
    ("Show the steps. How many are there?", "5"),
    ("Figure out $x$ in the equation $x+1=2$.", "1"),
    ("How many digits has the number, and what is the ratio of the areas?", "5"),
    ("Points $A$, $B$ and $C$ lie on a line.", "AB"),
    ("How many functions from (1, 2) to (2, 3)?", "(1, 2)"),
    ("Find all sets with (a) $S=T$. (b) If $S=T$, then $T$ is empty.", "1"),
    ("If $P(A) = P(B) = 1$ and $P(C) = 2$, what is $P(A \\cup B)$?", "0"),
    ("Find the least $n$, and prove that it is the least.", "5"),
    ("The rows are as shown. \\begin{array}{c}1\\\\2\\end{array} Find x.", "3"),
    ("As shown in the table: | a | b | |---|---| | 1 | 2 | Find a.", "1"),
    ("What is the probability that Ann is in the picture that he takes?", "1/4"),
    ("Each picture costs 2 dollars. What do 4 pictures on the wall cost?", "8"),
]


@pytest.mark.parametrize(
    ("kind", "question", "answer"),
    [(kind, *row) for kind, rows in NOISY.items() for row in rows],
)
def test_signs(kind, question, answer):
    rows = [problem(question, answer)]
    assert reasons(noise(rows, max_answer_characters=100)) == [kind.value]
    assert noise(rows, keep=[kind], max_answer_characters=100) == [None]


@pytest.mark.parametrize(("question", "answer"), CLEAN)
def test_no_false_alarm(question, answer):
    assert noise([problem(question, answer)], max_answer_characters=100) == [None]


def test_evidence():
    (verdict,) = noise([problem("So, prove that 1 = 1.")], max_answer_characters=9)
    assert verdict.evidence == "prove that"
    (verdict,) = noise([problem("Let x, as shown, be 1.")], max_answer_characters=9)
    assert verdict.evidence == "as shown"


def test_a_drawing_that_is_left_in_is_no_missing_figure():
    rows = [problem("How long is AB, as shown? [asy] draw((0,0)--(1,1)); [/asy]")]
    assert noise(rows, keep=[Noise.DRAWING], max_answer_characters=9) == [None]
