import json
import math

import pytest

from grpo_jax import config as c
from grpo_jax.trainer import metric_names, tripwires

LOSS = "loss/total"


def config_of(*, total_steps=100, task="arithmetic", **monitor):
    for name in ("warn_above", "warn_below", "stop_above", "stop_below"):
        bounds = monitor.get(name, {})
        monitor[name] = {metric: float(bound) for metric, bound in bounds.items()}
    return c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="characters"),
        task=c.TaskConfig(name=task),
        trainer=c.TrainerConfig(steps=total_steps),
        monitor=c.MonitorConfig(**{"steps": 2, **monitor}),
    ).seal()


class Case:
    """Tripwires in a directory, what they said and which batches they wanted."""

    def __init__(self, workdir, *, resume_step=0, state=None, **options):
        self.said, self.dumps, self.step = [], [], resume_step
        self.wires = tripwires.Tripwires(
            config_of(**options), workdir, resume_step=resume_step, state=state or {}
        )
        self.path = workdir / "tripwires.jsonl"

    def see(self, *values, name=LOSS):
        """Steps with these values; None is a step without the metric."""
        for value in values:
            self.step += 1
            metrics = {} if value is None else {name: value}
            self.dumps += self.wires.observe(self.step, metrics, self.said.append)
        return self

    @property
    def events(self):
        """(step, event) of every line of the record."""
        if not self.path.exists():
            return []
        rows = map(json.loads, self.path.read_text().splitlines())
        return [(row["step"], row["event"]) for row in rows]


@pytest.mark.parametrize(
    ("side", "bound", "values"),
    [("above", 5, [6, 5, 6, 7, 8]), ("below", -5, [-6, -5, -6, -7, -8])],
)
def test_trips_once_after_steps_in_a_row(tmp_path, side, bound, values):
    case = Case(tmp_path, **{f"warn_{side}": {LOSS: bound}}).see(*values)
    assert case.events == [(4, "tripped")]
    (sentence,) = case.said
    field = f"config.monitor.warn_{side}"
    assert f"{side} {bound} ({field}) for 2 steps" in sentence
    assert sentence.startswith(f"warning: step 4: loss/total is {values[3]}, ")
    assert case.wires.reason == ""


def test_recovers_after_as_many_and_can_trip_again(tmp_path):
    case = Case(tmp_path, warn_above={LOSS: 5})
    case.see(6, 6, 5, 6, 5, 5)
    assert case.events == [(2, "tripped"), (6, "recovered")]
    assert case.said[1] == (
        "step 6: loss/total is 5, not above 5 (config.monitor.warn_above) for 2 steps: "
        "recovered"
    )
    assert case.see(6, 6).events[2:] == [(8, "tripped")]


def test_what_is_no_number_says_nothing(tmp_path):
    case = Case(tmp_path, warn_above={LOSS: 5})
    assert case.see(6, math.nan, None, 6).events == [(4, "tripped")]
    case.see(5, math.nan, None)
    assert len(case.events) == 1
    assert case.see(5).events[1:] == [(8, "recovered")]


def test_infinity_is_beyond_every_bound(tmp_path):
    case = Case(tmp_path, warn_above={LOSS: 5}, steps=1).see(math.inf)
    assert case.events == [(1, "tripped")]
    assert json.loads(case.path.read_text())["values"] == [None]


def test_the_record(tmp_path):
    case = Case(tmp_path, stop_below={"policy/entropy": 0.5})
    case.see(0.4, 0.25, name="policy/entropy")
    assert json.loads(case.path.read_text()) == {
        "step": 2,
        "event": "tripped",
        "action": "stop",
        "side": "below",
        "metric": "policy/entropy",
        "bound": 0.5,
        "values": [0.4, 0.25],
        "dump": "000002_stop_below_policy-entropy.jsonl",
    }


def test_so_many_batches_a_rule(tmp_path):
    case = Case(tmp_path, warn_above={LOSS: 5, "reward/mean": 5}, steps=1, dumps=2)
    case.see(6, 0, 6, 0, 6).see(9, name="reward/mean")
    assert case.dumps == [
        "000001_warn_above_loss-total.jsonl",
        "000003_warn_above_loss-total.jsonl",
        "000006_warn_above_reward-mean.jsonl",
    ]
    none = Case(tmp_path / "none", warn_above={LOSS: 5}, dumps=0)
    none.path.parent.mkdir()
    assert none.see(6, 6).dumps == [] and "tripped/" not in none.said[0]


def test_a_stop_has_a_reason_that_says_how_to_go_on(tmp_path):
    case = Case(tmp_path, stop_above={LOSS: 5}, warn_above={LOSS: 4}).see(6, 6)
    assert case.wires.reason == (
        "tripwire: loss/total is 6, above 5 (config.monitor.stop_above) for 2 steps"
    )
    way_on = tripwires.way_on(case.wires.reason)
    assert "--config.monitor.stop_above={} for none" in way_on
    assert tripwires.way_on("SIGTERM") == "the same command goes on from there"


def resumed(case, workdir, **options):
    """As after a checkpoint: through JSON."""
    state = json.loads(json.dumps(case.wires.get_state()))
    return Case(workdir, resume_step=case.step, state=state, **options)


def test_counts_and_batches_survive_a_resume(tmp_path):
    options = dict(warn_above={LOSS: 5}, steps=3, dumps=1)
    values = [6, 6, 6, 6, 5, 5, 5, 6, 6, 6]
    straight = Case(tmp_path, **options).see(*values)
    assert straight.events == [(3, "tripped"), (7, "recovered"), (10, "tripped")]
    for stop in range(1, len(values)):
        workdir = tmp_path / str(stop)
        workdir.mkdir()
        first = Case(workdir, **options).see(*values[:stop])
        second = resumed(first, workdir, **options).see(*values[stop:])
        assert second.path.read_text() == straight.path.read_text()
        assert second.wires.get_state() == straight.wires.get_state()
        assert first.dumps + second.dumps == straight.dumps


def test_what_is_computed_again_is_recorded_once(tmp_path):
    case = Case(tmp_path, warn_above={LOSS: 5}).see(6, 6)
    state, step = case.wires.get_state(), case.step
    case.see(5, 5)
    with open(case.path, "a") as file:
        file.write('{"step": 9, "ev')  # killed while it was written
    again = Case(tmp_path, resume_step=step, state=state, warn_above={LOSS: 5})
    assert again.events == [(2, "tripped")]
    assert again.see(5, 5).events == [(2, "tripped"), (4, "recovered")]
    assert Case(tmp_path, warn_above={LOSS: 5}).events == []  # from the start


def test_the_same_wall_is_refused(tmp_path):
    options = dict(stop_above={LOSS: 5})
    case = Case(tmp_path, **options).see(6, 6)
    with pytest.raises(ValueError, match="stopped after step 2: loss/total is 6, above"
                       ".*--config.monitor.stop_above={} for none"):  # fmt: skip
        resumed(case, tmp_path, **options)
    resumed(case, tmp_path)
    # Another bound is another rule, which counts from 0.
    moved = resumed(case, tmp_path, stop_above={LOSS: 5.5})
    assert moved.see(6).wires.reason == "" and moved.see(6).wires.reason
    # Nothing is left to run into.
    resumed(case, tmp_path, total_steps=2, **options)


def test_impossible_bounds():
    with pytest.raises(ValueError, match="warn_above.*is 1.0.*warn_below.*is 2.0"):
        config_of(warn_above={LOSS: 1.0}, warn_below={LOSS: 2.0})
    config_of(warn_above={LOSS: 2.0}, warn_below={LOSS: 2.0})
    with pytest.raises(ValueError, match="config.monitor.steps is 0: use at least 1"):
        config_of(steps=0)


def test_an_unknown_metric_is_refused_with_the_nearest():
    metric_names.check(c.TrainConfig())  # the defaults
    config = config_of(stop_below={"policy/entropi": 0.1})
    with pytest.raises(
        ValueError,
        match="config.monitor.stop_below names 'policy/entropi'.*'policy/entropy'",
    ):
        metric_names.check(config)
    with pytest.raises(ValueError, match="names 'loss/kl', which no step of this run"):
        metric_names.check(config_of(warn_above={"loss/kl": 1.0}))
    with pytest.raises(ValueError, match="names 'zzz'.*there are .*'loss/total'"):
        metric_names.check(config_of(warn_above={"zzz": 1.0}))


def test_a_task_of_one_s_own_is_asked_at_its_first_step(tmp_path):
    options = dict(task="mine:task", warn_above={"search/calls": 9})
    metric_names.check(config_of(**options))
    assert Case(tmp_path, **options).see(1, name="search/calls").events == []
    with pytest.raises(ValueError, match="names 'search/calls'.*'search/call'"):
        Case(tmp_path, **options).see(1, name="search/call")


def test_names_depend_on_the_configuration():
    plain = metric_names.of_run(c.TrainConfig())
    everything = metric_names.of_run(
        c.TrainConfig(
            task=c.TaskConfig(name="math"),
            objective=c.ObjectiveConfig(kl_coef=0.1),
            guidance=c.GuidanceConfig(fraction=0.5),
            evaluation=c.EvaluationConfig(every_steps=1, samples=5),
            reward=c.RewardConfig(weights={"accuracy": 1.0, "mine:brevity": 0.1}),
        )
    )
    assert everything - plain >= {
        "loss/kl_p95",
        "guidance/kl",
        "evaluation/pass@4",
        "reward/timeouts",
        "reward/mine:brevity",
        "reward_std_in_group/mine:brevity",
        "time/evaluation_seconds",
    }
    assert "evaluation/pass@8" not in everything
    assert plain - everything == {"reward/format", "reward_std_in_group/format"}
    unjudged = c.TrainConfig(reward=c.RewardConfig(weights={"format": 1.0}))
    gone = plain - metric_names.of_run(unjudged)
    assert "reward/all_wrong_fraction" in gone and "reward/accuracy" in gone
