"""Trains a policy: warm start if configured, GRPO, evaluation, report.

    python -m grpo_jax.train --config=configs/quickstart.py --workdir=runs/quickstart

Any field can be overridden: `--config.optimizer.learning_rate=3e-4`. The same command
again resumes.
"""

import pathlib

from absl import flags

from grpo_jax import doors
from grpo_jax.trainer import loop, stopping

_CONFIG = doors.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything goes.", required=True)
_TIME_BUDGET = flags.DEFINE_string(
    "time_budget", "", "Save and stop before this much time has passed, such as 8h30m."
)


def main(_: list[str]) -> None:
    """Trains."""
    budget = stopping.parse_duration(_TIME_BUDGET.value)
    config = doors.sealed(_CONFIG)
    loop.train(config, pathlib.Path(_WORKDIR.value), budget_seconds=budget)


if __name__ == "__main__":
    doors.run(main)
