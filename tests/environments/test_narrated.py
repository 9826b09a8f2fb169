"""What is told is what happens, in its order, and nothing is changed by it."""

from grpo_jax.environments.base import Environment, Notice, Reply
from grpo_jax.environments.calculator import Calculator
from grpo_jax.environments.narrated import Narrated, shorten


def test_turns_and_replies_are_told_and_passed_on():
    told = []
    environment = Narrated(Calculator(), told.append)
    assert isinstance(environment, Environment)
    assert environment.stops == Calculator.stops
    environment.reset([], [])
    assert environment.read("so <calc>1+2</calc>") == ("1+2", False)
    assert environment.step([0], ["1+2"]) == Calculator().step([0], ["1+2"])
    last = environment.notice(Notice.LAST)
    assert last == Calculator().notice(Notice.LAST)
    assert told == ["so <calc>1+2</calc>", "<result>3</result>", last.text]
    assert environment.asked == 1
    environment.reset([], [])
    assert environment.asked == 0


def test_a_failure_is_told():
    told = []

    class Down(Calculator):
        def step(self, rows, queries):
            return [Reply("no answer", failed=True)]

    assert Narrated(Down(), told.append).step([0], ["1"])[0].failed
    assert told == ["failed: no answer"]


def test_long_replies_are_told_in_short():
    assert shorten("\n\na\n \nb\n") == "a\nb"
    assert shorten("x" * 101) == "x" * 100 + " ..."
    assert shorten("\n".join("ab" * 7)) == "\n".join([*"abababababab", "..."])
