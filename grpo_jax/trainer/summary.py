"""How a run ended: how far it came, at what cost, and what it changed."""

import json
import pathlib
from typing import Any

from grpo_jax.reporting import terminal
from grpo_jax.trainer import logbook, tripwires
from grpo_jax.trainer.position import Position

STALLED = "validation no longer rose"


def write(
    workdir: pathlib.Path, step: int, stopped: str, position: Position
) -> dict[str, Any]:
    """Writes summary.json and returns it.

    Args:
      workdir: of the run.
      step: it came to.
      stopped: why it ended.
      position: where it stands.
    """
    evaluations = {
        name: logbook.read_evaluation(workdir, name)
        for name in ("before", "after", "best")
    }
    after = evaluations["after"]
    if after and after["step"] != step:
        evaluations |= {"after": None, "best": None}  # of a run that was shorter
    seconds, tokens = position.timer.totals, position.generated_tokens
    summary = {
        "steps": step,
        "stopped": stopped,
        "seconds": seconds | {"total": sum(seconds.values())},
        "generated_tokens": tokens,
        "tokens_per_second": tokens / max(seconds.get("rollout", 0), 1e-9),
        "evaluation": evaluations,
    }
    logbook.write_json(workdir / "summary.json", summary)
    return summary


def show(workdir: pathlib.Path, summary: dict[str, Any]) -> None:
    """Prints what the run changed, some of its last completions, and the report."""
    evaluations = summary["evaluation"]
    rollouts = workdir / "rollouts" / f"{summary['steps']:06d}.jsonl"
    lines = rollouts.read_text().splitlines() if rollouts.exists() else []
    notes = []
    if best := evaluations["best"]:
        rate = best["sampled"]["pass@1"]["mean"]
        notes.append(
            f"best by validation (--checkpoint=best): step {best['step']}, pass@1 "
            f"{rate:.1%} of the test problems"
        )
    if summary["stopped"] == STALLED:
        notes.append(f"ended at step {summary['steps']}: {STALLED}")
    elif summary["stopped"] != "finished":
        notes.append(
            f"stopped after step {summary['steps']} ({summary['stopped']}): "
            + tripwires.way_on(summary["stopped"])
        )
    terminal.print_results(
        evaluations["before"],
        evaluations["after"],
        terminal.choose_samples([json.loads(line) for line in lines]),
        workdir / "report.html",
        notes=notes,
    )
