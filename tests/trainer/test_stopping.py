import signal
import time

import pytest

from grpo_jax.trainer.stopping import Stopper, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8h30m", 30_600),
        ("45s", 45),
        ("90", 90),
        ("1d", 86_400),
        ("1.5h", 5400),
        ("1d2h3m4.5s", 93_784.5),
        ("0", 0),
        ("", 0),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["8x", "h", "8h 30m", "30m!", "8h30", "-5", "nan", "inf", "-1h", " "]
)
def test_impossible_durations(text):
    with pytest.raises(ValueError, match="--time_budget is .*: write it like 8h30m"):
        parse_duration(text)


@pytest.fixture
def heard():
    """Signals that reach the handlers of before; restored at the end."""
    numbers = []
    before = {
        number: signal.signal(number, lambda number, _: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_caught_once(heard, number):
    with Stopper() as stopper:
        assert not stopper.should_stop()
        signal.raise_signal(number)
        assert stopper.should_stop() and stopper.reason == number.name
        assert heard == []
        signal.raise_signal(number)
        assert heard == [number]
    signal.raise_signal(number)
    assert heard == [number, number]


def test_handlers_are_given_back_at_the_end(heard):
    with Stopper():
        pass
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def stops(self, stopper, *steps):
        """Takes steps of these seconds and returns what each ended with."""
        answers = []
        for seconds in steps:
            self.now += seconds
            answers.append(stopper.should_stop())
        return answers


def test_a_budget_keeps_room_for_a_step_and_for_saving(monkeypatch):
    clock = Clock(monkeypatch)
    stopper = Stopper(100.0)
    # 20 + 30 = 50 leave 50 < 2 x 30; before, 80 are left and 2 x 20 fit.
    assert clock.stops(stopper, 20, 30) == [False, True]
    assert stopper.reason == "time budget"


def test_a_budget_looks_at_the_longest_step(monkeypatch):
    clock = Clock(monkeypatch)
    stopper = Stopper(100.0)
    # 40 left are 2 x 20, the longest; a second less is too little.
    assert clock.stops(stopper, 20, 10, 10, 10, 10, 1) == [False] * 5 + [True]


def test_once_stopped_it_stays_so(monkeypatch):
    clock = Clock(monkeypatch)
    stopper = Stopper(10.0)
    assert clock.stops(stopper, 9, 0.1) == [True, True]


def test_no_budget_never_stops(monkeypatch):
    clock = Clock(monkeypatch)
    assert clock.stops(Stopper(), 1e6, 1e9) == [False, False]
