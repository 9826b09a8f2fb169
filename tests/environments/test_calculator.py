import pytest

from grpo_jax.environments.base import Environment, Notice
from grpo_jax.environments.calculator import Calculator, calculate
from grpo_jax.rewards.reading import Query


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1+2*3", "7"),
        ("(1+2)*3", "9"),
        ("1/3 + 1/6", "1/2"),
        ("0.1 + 0.2", "3/10"),
        ("-(2 - 5)", "3"),
        ("1/0", "division by zero"),
        ("2**9999999", "not an expression"),
        ("__import__('os')", "not an expression"),
        ("True + 1", "not an expression"),
        ("1 +", "not an expression"),
        ("(" * 100 + "1", "not an expression"),
        ("", "not an expression"),
        ("1+" * 100 + "1", "too long"),
    ],
)
def test_values(expression, value):
    assert calculate(expression) == value


@pytest.mark.parametrize(
    ("turn", "query"),
    [
        ("so <calc> 1+2 </calc>", Query("1+2", malformed=False)),
        ("<calc>1<calc>2</calc>", Query("2", malformed=False)),
        ("1+2</calc>", Query("1+2", malformed=True)),
        ("<calc> </calc>", Query("", malformed=True)),
    ],
)
def test_queries(turn, query):
    found = Calculator().read(turn)
    assert found.malformed == query.malformed
    if not found.malformed:
        assert found == query


def test_replies():
    calculator = Calculator()
    assert isinstance(calculator, Environment)
    (reply,) = calculator.step([0], ["6*7"])
    assert reply.text == "<result>42</result>" and reply.text.endswith(reply.closing)
    assert "could not be read" in calculator.notice(Notice.MALFORMED).text
