"""A calculator: `<calc>(3 + 4) * 2</calc>` is followed by `<result>14</result>`.

Whole numbers and fractions, exactly. It is the second example of an environment, and
the shorter one to copy.
"""

import ast
import fractions
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Notice, Reply
from grpo_jax.rewards.reading import Query

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}
# Longer expressions are refused: a product of few digits has few.
_LONGEST = 200


class Calculator:
    """Evaluates sums, differences, products and quotients."""

    stops: tuple[str, ...] = ("</calc>",)

    def reset(
        self, examples: Sequence[Example], histories: Sequence[Sequence[str]]
    ) -> None:
        """Nothing is kept between queries."""

    def read(self, turn: str) -> Query:
        """Returns what stands in the last pair of tags."""
        _, opened, query = turn.partition("</calc>")[0].rpartition("<calc>")
        return Query(query.strip(), malformed=not (opened and query.strip()))

    def step(self, rows: Sequence[int], queries: Sequence[str]) -> list[Reply]:
        """Returns each result, or what is wrong with the expression."""
        return [_reply(calculate(query)) for query in queries]

    def notice(self, notice: Notice) -> Reply:
        """Returns a result that is a sentence."""
        return _reply(notice.value)

    def describe(self) -> Mapping[str, Any]:
        """Returns nothing: arithmetic does not change."""
        return {}

    def take_metrics(self) -> Mapping[str, float]:
        """Counts nothing."""
        return {}

    def close(self) -> None:
        """Nothing was started."""


def calculate(expression: str) -> str:
    """Returns the value of an expression, or why it has none."""
    if len(expression) > _LONGEST:
        return "too long"
    try:
        return str(_value(ast.parse(expression, mode="eval").body))
    except ZeroDivisionError:
        return "division by zero"
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "not an expression"


def _value(node: ast.expr) -> fractions.Fraction:
    match node:
        case ast.Constant(value=int() | float() as number) if type(number) is not bool:
            return fractions.Fraction(str(number))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
    raise ValueError("neither a number nor one of + - * /")


def _reply(text: str) -> Reply:
    return Reply(f"<result>{text}</result>", "</result>")
