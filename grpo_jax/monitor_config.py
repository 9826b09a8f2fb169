"""Which metrics of a run are watched, and what happens beyond their bounds.

What to do where one trips is in docs/monitors.md.
"""

import dataclasses

from grpo_jax.sections import Section, at_least


@dataclasses.dataclass
class MonitorConfig(Section):
    """Tripwires: names of metrics, as in metrics.jsonl, to their bounds.

    A metric that a step does not have, or that is no number, says nothing: it neither
    trips nor recovers.
    """

    # Said in the terminal, in tripwires.jsonl and on the report page.
    warn_above: dict[str, float] = dataclasses.field(
        default_factory=lambda: {
            "rollout/truncated_fraction": 0.5,
            "rollout/repeated_fraction": 0.5,
            "reward/zero_variance_fraction": 0.9,
        }
    )
    warn_below: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"rollout/script_fraction": 0.95}
    )
    # The same, then the run saves and ends, as on SIGTERM.
    stop_above: dict[str, float] = dataclasses.field(default_factory=dict)
    stop_below: dict[str, float] = dataclasses.field(default_factory=dict)
    # In a row beyond a bound before it trips, and within it before it has recovered.
    steps: int = 3
    # Most batches written to tripped/ for each rule: of the steps at which it trips.
    dumps: int = 3

    def validate(self, path: str):
        """Some value of every metric must be within its bounds."""
        at_least(path, self, steps=1, dumps=0)
        for action in ("warn", "stop"):
            above = getattr(self, f"{action}_above")
            below = getattr(self, f"{action}_below")
            for name in above.keys() & below.keys():
                if above[name] < below[name]:
                    raise ValueError(
                        f"{path}.{action}_above[{name!r}] is {above[name]} and "
                        f"{path}.{action}_below[{name!r}] is {below[name]}: every "
                        "value is beyond one of them; raise the first or lower the "
                        "second"
                    )
