"""Rules that warn, or end the run, where a metric stays beyond its bound.

    beyond its bound for config.monitor.steps steps in a row   -> trips, once
    within it for as many                                      -> has recovered

A rule that stops ends the run as SIGTERM does, after the checkpoint of the step. The
same command then refuses to run on into the same wall until the bound was changed or
the rule was taken out.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from grpo_jax.config import MonitorConfig, TrainConfig
from grpo_jax.reporting.files import write_atomically
from grpo_jax.trainer import metric_names
from grpo_jax.trainer.metrics import plain

_REASON = "tripwire: "


@dataclasses.dataclass(frozen=True)
class Rule:
    """One bound of one metric, as `config.monitor` names it."""

    action: Literal["warn", "stop"]
    side: Literal["above", "below"]
    metric: str
    bound: float

    @property
    def field(self) -> str:
        """Where its bound is set."""
        return f"config.monitor.{self.action}_{self.side}"

    @property
    def key(self) -> str:
        """What a checkpoint calls it: with another bound it is another rule."""
        return f"{self.action}_{self.side} {self.metric} {self.bound!r}"

    def is_beyond(self, value: float) -> bool:
        """Returns whether a value is beyond the bound; the bound itself is not."""
        return value > self.bound if self.side == "above" else value < self.bound


@dataclasses.dataclass
class _State:
    """What a rule has seen, of the steps that have its metric as a number.

    Attributes:
      tripped: 1 where it has and did not recover since, else 0.
      in_a_row: newest steps that speak against that: beyond the bound, or, where it
        has tripped, within.
      dumps: batches written for it.
      recent: newest values, at most `config.monitor.steps`.
    """

    tripped: int = 0  # checkpoints of orbax know no bool
    in_a_row: int = 0
    dumps: int = 0
    recent: list[float] = dataclasses.field(default_factory=list)


class Tripwires:
    """Looks at the metrics of every step.

    Attributes:
      reason: why the run is to end; "" as long as it is not.
    """

    def __init__(
        self,
        config: TrainConfig,
        workdir: pathlib.Path,
        *,
        resume_step: int,
        state: Mapping[str, Any],
    ):
        """Takes up what a checkpoint held.

        Args:
          config: sealed.
          workdir: tripwires.jsonl is in it; lines of later steps are dropped.
          resume_step: the checkpoint's step; 0 where there is none.
          state: of `get_state`; {} where there is none.

        Raises:
          ValueError: the run stopped at one of the rules, has steps left, and the rule
            is still there.
        """
        self.reason = ""
        self._config = config
        self._path = workdir / "tripwires.jsonl"
        self._names_checked = False
        self._states = {
            rule: _State(**state.get(rule.key, {})) for rule in rules(config.monitor)
        }
        if resume_step < config.trainer.steps:
            for rule, seen in self._states.items():
                if rule.action == "stop" and seen.tripped:
                    raise ValueError(
                        f"the run in {workdir} stopped after step {resume_step}: "
                        f"{self._said(rule, seen)}. It would run on into the same "
                        f"wall: {_way_on(rule.field)}"
                    )
        _keep_through(self._path, resume_step)

    def observe(
        self, step: int, metrics: Mapping[str, Any], say: Callable[[str], None]
    ) -> list[str]:
        """Counts a step; says, records and returns what follows from it.

        Args:
          step: from 1.
          metrics: all of the step.
          say: prints a sentence.

        Returns:
          Names of files in tripped/ that the batch of this step belongs into.

        Raises:
          ValueError: a rule names a metric that no step has.
        """
        if not self._names_checked:
            known = metric_names.of_run(self._config) | metrics.keys()
            metric_names.check_known(self._config.monitor, known)
            self._names_checked = True
        dumps = []
        for rule, seen in self._states.items():
            value = metrics.get(rule.metric)
            if value is None or math.isnan(value):
                continue
            if self._changes(rule, seen, float(value)):
                dump = self._dump_name(step, rule, seen)
                dumps += [dump] if dump else []
                self._record(step, rule, seen, dump)
                say(self._sentence(step, rule, seen, dump))
                if rule.action == "stop" and seen.tripped:
                    self.reason = self.reason or _REASON + self._said(rule, seen)
        return dumps

    def get_state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold; JSON can."""
        states = self._states.items()
        return {rule.key: dataclasses.asdict(seen) for rule, seen in states}

    def _changes(self, rule: Rule, seen: _State, value: float) -> bool:
        """Counts a value; returns whether the rule tripped or recovered with it."""
        steps = self._config.monitor.steps
        seen.recent = [*seen.recent, value][-steps:]
        against = rule.is_beyond(value) != bool(seen.tripped)
        seen.in_a_row = seen.in_a_row + 1 if against else 0
        if seen.in_a_row < steps:
            return False
        seen.tripped, seen.in_a_row = 1 - seen.tripped, 0
        return True

    def _dump_name(self, step: int, rule: Rule, seen: _State) -> str:
        """Returns the file of the batch that a rule tripped on; "" for none."""
        if not seen.tripped or seen.dumps >= self._config.monitor.dumps:
            return ""
        seen.dumps += 1
        metric = re.sub(r"\W+", "-", rule.metric)
        return f"{step:06d}_{rule.action}_{rule.side}_{metric}.jsonl"

    def _record(self, step: int, rule: Rule, seen: _State, dump: str) -> None:
        line = {
            "step": step,
            "event": "tripped" if seen.tripped else "recovered",
            **dataclasses.asdict(rule),
            "values": [plain(value) for value in seen.recent],
            "dump": dump,
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _sentence(self, step: int, rule: Rule, seen: _State, dump: str) -> str:
        if not seen.tripped:
            return f"step {step}: {self._said(rule, seen)}: recovered"
        kept = f"; its batch is in tripped/{dump}" if dump else ""
        ends = "; the run saves and stops" if rule.action == "stop" else ""
        return (
            f"warning: step {step}: {self._said(rule, seen)}{kept}{ends}. "
            "docs/monitors.md says what to do"
        )

    def _said(self, rule: Rule, seen: _State) -> str:
        """Returns "policy/entropy is 0.01, below 0.05 (config...) for 3 steps"."""
        steps = self._config.monitor.steps
        where = rule.side if seen.tripped else f"not {rule.side}"
        return (
            f"{rule.metric} is {seen.recent[-1]:.4g}, {where} "
            f"{rule.bound:g} ({rule.field}) for {steps} step{'s' if steps > 1 else ''}"
        )


def rules(config: MonitorConfig) -> list[Rule]:
    """Returns the rules of a configuration."""
    return [
        *(Rule("warn", "above", m, float(b)) for m, b in config.warn_above.items()),
        *(Rule("warn", "below", m, float(b)) for m, b in config.warn_below.items()),
        *(Rule("stop", "above", m, float(b)) for m, b in config.stop_above.items()),
        *(Rule("stop", "below", m, float(b)) for m, b in config.stop_below.items()),
    ]


def way_on(reason: str) -> str:
    """Returns how a run that stopped for this reason goes on."""
    if reason.startswith(_REASON):
        fields = re.findall(r"config\.monitor\.\w+", reason)
        return _way_on(fields[0])
    return "the same command goes on from there"


def _way_on(field: str) -> str:
    return (
        f"with another bound in --{field}, or --{field}={{}} for none, the same "
        "command goes on from there"
    )


def _keep_through(path: pathlib.Path, step: int) -> None:
    """Drops the lines of later steps, and one that a crash left unfinished."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= step:
            kept.append(line)
    write_atomically(path, "".join(kept))
