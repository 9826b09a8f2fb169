"""A workdir as the trainer writes it, with made-up numbers."""

import json
import math
import random
from pathlib import Path

import pytest


@pytest.fixture
def make_workdir(tmp_path):
    def make(name: str = "run", **options) -> Path:
        return write_workdir(tmp_path / name, **options)

    return make


def write_workdir(
    path: Path,
    *,
    steps: int = 30,
    groups: int = 3,
    group_size: int = 4,
    rollout_every: int = 1,
    seed: int = 0,
    rate: float = 8.0,
    completion: str | None = None,
    ended: bool = True,
) -> Path:
    rng = random.Random(seed)
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", CONFIG | {"seed": seed})
    write_rows(path / "warm_start.jsonl", warm_start(rng))
    rows = [metrics(step, steps, rng, rate) for step in range(1, steps + 1)]
    write_rows(path / "metrics.jsonl", rows)
    for step in range(1, steps + 1, rollout_every):
        accuracy = rows[step - 1]["reward/accuracy"]
        made = rollout(step, groups, group_size, accuracy, rng, completion)
        write_rows(path / "rollouts" / f"{step}.jsonl", made)
    marks = [("before", 0, "test")]
    marks += [(f"step_{s:06d}", s, "validation") for s in range(0, steps, 10)]
    marks += [("after", steps, "test")] if ended else []
    for mark, step, split in marks:
        row = evaluation(mark, step, split, curve(step, steps, rate))
        write_json(path / "evaluation" / f"{mark}.json", row)
    if ended:
        write_json(path / "summary.json", SUMMARY | {"steps": steps})
    return path


def curve(step: int, steps: int, rate: float) -> float:
    return 0.31 + 0.56 / (1 + math.exp(-rate * (step / max(steps, 1) - 0.45)))


def metrics(step: int, steps: int, rng: random.Random, rate: float) -> dict:
    accuracy = min(1.0, max(0.0, curve(step, steps, rate) + rng.gauss(0, 0.05)))
    form = min(1.0, 0.9 + 0.1 * step / steps + rng.gauss(0, 0.01))
    return {
        "step": step,
        "reward/mean": accuracy + 0.1 * form,
        "reward/accuracy": accuracy,
        "reward/format": form,
        "reward/std_in_group": 0.45 * math.sqrt(accuracy * (1 - accuracy)),
        "reward/zero_variance_fraction": abs(accuracy - 0.4) + rng.random() * 0.05,
        "rollout/completion_tokens_mean": 31 + 4 * accuracy + rng.gauss(0, 0.6),
        "rollout/completion_tokens_max": 48 + rng.randrange(4),
        "rollout/truncated_fraction": max(0.0, 0.05 - accuracy / 20),
        "rollout/tokens_per_second": 18_400 + rng.gauss(0, 600),
        "loss/total": rng.gauss(0, 0.01),
        "loss/kl": 0.02 * step / steps + abs(rng.gauss(0, 0.002)),
        "policy/entropy": 0.62 - 0.4 * step / steps + rng.gauss(0, 0.015),
        "policy/clip_fraction": abs(rng.gauss(0.004, 0.002)),
        "policy/ratio_max": 1.2 + abs(rng.gauss(0, 0.3)),
        "policy/sampler_gap_mean": abs(rng.gauss(0.002, 0.0004)),
        "optimizer/gradient_norm": abs(rng.gauss(0.4, 0.1)) * (9 if step == 20 else 1),
        "optimizer/learning_rate": 1e-5 * min(1, step / 10) * (1 - step / steps / 2),
        "time/rollout_seconds": 0.61 + rng.random() * 0.05,
        "time/reward_seconds": 0.01,
        "time/update_seconds": 0.38 + rng.random() * 0.03,
        "time/step_seconds": 1.02 + rng.random() * 0.08,
        "guidance/length": max(0.0, 20 - step / 3),
    }


def warm_start(rng: random.Random) -> list[dict]:
    return [
        {
            "step": step,
            "loss": 0.4 + 2.8 * math.exp(-step / 12) + rng.gauss(0, 0.03),
            "optimizer/learning_rate": 1e-3,
            "time/step_seconds": 0.12,
        }
        for step in range(1, 61)
    ]


def rollout(step, groups, group_size, accuracy, rng, completion) -> list[dict]:
    rows = []
    for group in range(groups):
        a, b, c = (rng.randrange(10) for _ in range(3))
        truth = (a + b - c) % 10
        right = [rng.random() < accuracy for _ in range(group_size)]
        mean = sum(right) / group_size
        for sample in range(group_size):
            said = truth if right[sample] else (truth + 3) % 10
            text = f"{a} + {b} = {(a + b) % 10}\n{(a + b) % 10} - {c} = {said}\n"
            rows.append(
                {
                    "step": step,
                    "group": group,
                    "sample": sample,
                    "prompt_id": 1000 * step + group,
                    "prompt": f"Compute modulo 10: {a} + {b} - {c}",
                    "completion": completion or f"{text}<answer>{said}</answer>",
                    "reference": str(truth),
                    "rewards": {
                        "accuracy": float(right[sample]),
                        "format": None if sample == 3 else 1.0,
                    },
                    "reward": right[sample] + 0.1,
                    "advantage": (right[sample] - mean) / 0.5,
                    "completion_tokens": 21 + rng.randrange(6),
                    "finished": rng.random() < 0.93,
                    "spans": [["guidance", 0, 4], ["sampled", 4, 23]]
                    if sample == 1
                    else [["sampled", 0, 23]],
                }
            )
    return rows


def evaluation(name: str, step: int, split: str, mean: float) -> dict:
    four = min(0.99, mean + 0.14)
    return {
        "name": name,
        "split": split,
        "step": step,
        "problems": 512,
        "samples": 4,
        "sampled": {
            "pass@1": {"mean": mean, "low": mean - 0.031, "high": mean + 0.029},
            "pass@4": {"mean": four, "low": four - 0.025, "high": four + 0.02},
        },
        "greedy": {
            "pass@1": {"mean": mean + 0.04, "low": mean, "high": mean + 0.08},
        },
        "completion_tokens_mean": 33.4 + 5 * mean,
        "truncated_fraction": 0.06 * (1 - mean),
        "format_fraction": 0.9 + 0.1 * mean,
    }


def write_json(path: Path, value: dict):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2))


def write_rows(path: Path, rows: list[dict]):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


CONFIG = {
    "seed": 0,
    "policy": {"path": "", "preset": "miniature", "dtype": "float32"},
    "task": {"name": "arithmetic", "arithmetic": {"operations": 3, "operators": "+-"}},
    "rollout": {
        "prompts_per_step": 32,
        "group_size": 8,
        "max_completion_tokens": 48,
        "sampling": {"temperature": 1.0, "top_p": 1.0},
    },
    "reward": {"weights": {"accuracy": 1.0, "format": 0.1}, "workers": 2},
    "objective": {"loss": "grpo", "clip_low": 0.2, "clip_high": 0.2, "kl_coef": 0.0},
    "optimizer": {"learning_rate": 1e-5, "schedule": "linear"},
    "warm_start": {"steps": 60},
    "trainer": {"steps": 300},
    "evaluation": {"confidence": 0.95, "samples": 4},
}

SUMMARY = {
    "steps": 300,
    "seconds": {
        "warm_start": 9.4,
        "rollout": 188.2,
        "reward": 2.9,
        "update": 117.0,
        "evaluation": 24.1,
        "total": 352.6,
    },
    "tokens_per_second": 18240.0,
    "stopped": "finished",
}
