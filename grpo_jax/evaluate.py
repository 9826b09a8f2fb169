r"""Evaluates a policy on held-out problems: pass@1, pass@k, intervals, lengths.

    python -m grpo_jax.evaluate --workdir=runs/quickstart
    python -m grpo_jax.evaluate --config=configs/gsm8k.py --workdir=runs/base \
        --config.policy.path=DIR --config.evaluation.samples=8

The first takes a run's newest checkpoint; the second the weights a configuration
starts from. Writes WORKDIR/evaluation/NAME.json, and every completion beside it.
"""

import contextlib

import jax
from absl import flags

from grpo_jax import doors
from grpo_jax.reporting import terminal
from grpo_jax.trainer import evaluation, logbook, policies, run

_POLICY = doors.define_policy()
_SPLIT = flags.DEFINE_enum("split", "test", ["validation", "test"], "What to solve.")
_NAME = flags.DEFINE_string("name", "", "Of the result; default SPLIT_STEP.")


def main(_: list[str]) -> None:
    """Evaluates, writes and prints."""
    config, workdir, checkpoint = _POLICY.values()
    (workdir / "evaluation").mkdir(parents=True, exist_ok=True)
    with contextlib.closing(run.build(config)) as built, jax.set_mesh(built.model.mesh):
        params, step = policies.load_params(built.model, workdir, checkpoint)
        problems = evaluation.problems(built, _SPLIT.value)
        if not problems:
            raise ValueError(
                f"the task has no {_SPLIT.value} problems: set "
                f"--config.task.{_SPLIT.value}_path, or another --split"
            )
        result, samples = evaluation.evaluate(
            built,
            built.model.rollout_view(params),
            problems,
            name=_NAME.value or f"{_SPLIT.value}_{step:06d}",
            split=_SPLIT.value,
            step=step,
        )
    path = logbook.write_evaluation(workdir, result, samples)
    terminal.print_evaluation(result)
    print(path)


if __name__ == "__main__":
    doors.run(main)
