"""What the study of rewards found, as tables and as a figure."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from grpo_jax.config import RewardConfig
from grpo_jax.reporting import workdir
from grpo_jax.rewards.base import Completion, RewardFunction
from grpo_jax.rewards.builtin import builtin_rewards
from studies import estimates, outcomes, ranking, school
from studies.rewards import LIMIT_TOKENS, REGIMES, WAVE_CHARACTERS
from studies.study import Name, is_done

# In the figure; the table has all.
_DRAWN = ("accuracy", "cosine", "legacy", "cosine_right", "cosine_unscaled")
_FEW_STEPS = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one run showed: on test problems, and step by step in training.

    Training problems come once each, so that what is written for them is as new as what
    is written for others.

    Attributes:
      before: pass@1 on test problems, sampled and greedy, of the base.
      after: the same of the last step.
      lengths: mean tokens of the samples, before and after.
      truncated: fraction of the samples that the limit cut, before and after.
      past: fraction of the samples beyond the low of the legacy wave, before and after.
      tokens: that the policy had generated in training, by step.
      right: fraction of completions that are right, by step.
      length_curve: mean tokens of completions, by step.
      past_curve: fraction beyond the low of the legacy wave, by step.
      lost: of the squared advantages of the first steps, the share of groups in which
        nothing is right.
    """

    before: tuple[float, float]
    after: tuple[float, float]
    lengths: tuple[float, float]
    truncated: tuple[float, float]
    past: tuple[float, float]
    tokens: np.ndarray
    right: np.ndarray
    length_curve: np.ndarray
    past_curve: np.ndarray
    lost: float


def write(output: pathlib.Path) -> None:
    """Writes OUTPUT/results.md and OUTPUT/results.svg from the runs that have ended."""
    found = outcomes.find(REGIMES, output, read)
    tables = [_table(name, arms) for name, arms in found.items()]
    if counts := _rank(output):
        tables.append(_ranking_table(counts))
    outcomes.write(output, tables, _charts(found))


def read(folder: pathlib.Path) -> Outcome:
    """Returns what a finished run showed."""
    run = workdir.read_run(folder)
    ends = [run.evaluation(name) or {} for name in ("before", "after")]
    samples = [folder / f"evaluation/{name}.jsonl" for name in ("before", "after")]
    rollouts = [
        workdir.read_rollout(folder, step, run.notes) for step in run.rollout_steps
    ]
    return Outcome(
        before=outcomes.passes(run, "before"),
        after=outcomes.passes(run, "after"),
        lengths=_pair([row["completion_tokens_mean"] for row in ends]),
        truncated=_pair([row["truncated_fraction"] for row in ends]),
        past=_pair([_past(workdir.read_rows(path, run.notes)) for path in samples]),
        tokens=np.cumsum(outcomes.column(run, "rollout/generated_tokens")),
        right=outcomes.column(run, "reward/accuracy"),
        length_curve=outcomes.column(run, "rollout/completion_tokens_mean"),
        past_curve=np.array([_past(rows) for rows in rollouts]),
        lost=_lost([row for rows in rollouts[:_FEW_STEPS] for row in rows]),
    )


def _pair(values: Sequence[float]) -> tuple[float, float]:
    before, after = values
    return before, after


def _past(rows: Sequence[workdir.Row]) -> float:
    """Returns the fraction of completions beyond the low of the legacy wave."""
    return float(np.mean([len(row["completion"]) > WAVE_CHARACTERS for row in rows]))


def _lost(rows: Sequence[workdir.Row]) -> float:
    """Returns the share of the squared advantages in groups without a right one."""
    groups: dict[tuple[int, int], list[workdir.Row]] = {}
    for row in rows:
        groups.setdefault((row["step"], row["group"]), []).append(row)
    squares = {True: 0.0, False: 0.0}
    for group in groups.values():
        right = any(row["rewards"]["accuracy"] == 1.0 for row in group)
        squares[right] += sum(row["advantage"] ** 2 for row in group)
    return squares[False] / sum(squares.values())


_Arms = Mapping[str, Sequence[Outcome]]


def _table(regime: str, arms: _Arms) -> str:
    """Returns a regime's table, in Markdown: means over seeds."""
    any_arm = next(iter(arms.values()))
    sampled, greedy = (
        100 * np.mean([run.before[i] for run in any_arm]) for i in (0, 1)
    )
    length = np.mean([run.lengths[0] for run in any_arm])
    past, cut = (
        100 * np.mean([getattr(run, field)[0] for run in any_arm])
        for field in ("past", "truncated")
    )
    tokens = min(run.tokens[-1] for runs in arms.values() for run in runs)
    lines = [
        f"### {regime}: {REGIMES[regime].title}",
        "",
        f"{len(any_arm)} seeds. Bases: sampled {sampled:.1f} %, greedy {greedy:.1f} %; "
        f"{length:.1f} tokens, {past:.1f} % past the low, {cut:.1f} % truncated.",
        "",
        "| arm | sampled | less accuracy | greedy | tokens | less accuracy | past the "
        f"low | truncated | lost | right at {tokens / 1000:.0f}k | tokens at "
        f"{tokens / 1000:.0f}k |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    controls = arms.get("accuracy", ())
    for arm, runs in arms.items():
        others = controls if arm != "accuracy" else ()
        right = [_at(tokens, run, run.right) for run in runs]
        lengths = [_at(tokens, run, run.length_curve) for run in runs]
        cells = [
            arm,
            *_compared([x.after[0] for x in runs], [x.after[0] for x in others], 100),
            estimates.spread([run.after[1] for run in runs]),
            *_compared([x.lengths[1] for x in runs], [x.lengths[1] for x in others], 1),
            estimates.spread([run.past[1] for run in runs]),
            estimates.spread([run.truncated[1] for run in runs]),
            f"{100 * np.mean([run.lost for run in runs]):.1f}",
            estimates.spread(right),
            estimates.spread(lengths, scale=1),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _at(tokens: float, run: Outcome, values: np.ndarray) -> float:
    """Returns the mean of the steps up to so many generated tokens, at most five."""
    last = int(np.searchsorted(run.tokens, tokens)) + 1
    return float(values[:last][-_FEW_STEPS:].mean())


def _compared(
    values: Sequence[float], others: Sequence[float], scale: float
) -> tuple[str, str]:
    """Returns values over seeds, and by what they differ from others, if any."""
    less = estimates.difference(values, others, scale=scale) if others else ""
    return estimates.spread(values, scale), less


def _rank(output: pathlib.Path) -> dict[str, dict[str, ranking.Counts]]:
    """Returns how the rewards rank what bases wrote, by regime and reward."""
    found: dict[str, dict[str, ranking.Counts]] = {}
    for regime, what in REGIMES.items():
        folders = [
            output / str(Name(regime, school.BASE, seed)) for seed in range(what.seeds)
        ]
        if not all(is_done(folder) for folder in folders):
            continue
        counts: dict[str, ranking.Counts] = {}
        for folder in folders:
            completions, accuracy = ranking.read(folder / "evaluation/before.jsonl")
            for name, reward in _rewards(accuracy).items():
                one = ranking.count(completions, accuracy, reward)
                counts[name] = counts.get(name, ranking.Counts()) + one
        found[regime] = counts
    return found


def _rewards(values: Sequence[float | None]) -> dict[str, RewardFunction]:
    """Returns the rewards of the arms, for completions of that accuracy."""

    def accuracy(completions: Sequence[Completion]) -> Sequence[float | None]:
        del completions
        return values

    config, wave = RewardConfig(), RewardConfig()
    config.cosine.max_tokens = LIMIT_TOKENS
    wave.cosine.max_tokens = WAVE_CHARACTERS
    cosine = builtin_rewards(accuracy, config, LIMIT_TOKENS)["cosine"]
    legacy = builtin_rewards(accuracy, wave, LIMIT_TOKENS)["legacy_open_rs_cosine"]
    return {"accuracy": accuracy, "cosine": cosine, "legacy": legacy}


def _ranking_table(found: Mapping[str, Mapping[str, ranking.Counts]]) -> str:
    lines = [
        "### How the rewards rank what the bases wrote",
        "",
        "| regime | reward | wrong above right | of two right, the longer | of two "
        "wrong, the longer |",
        "|---|---|---|---|---|",
    ]
    for regime, counts in found.items():
        for name, each in counts.items():
            cells = [
                _share(each.wrong_above_right, each.mixed),
                _share(each.longer_above_of_right, each.right),
                _share(each.longer_above_of_wrong, each.wrong),
            ]
            lines.append(f"| {regime} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} % of {whole}" if whole else "none"


def _charts(found: Mapping[str, _Arms]) -> list[str]:
    """Returns the charts of the figure: means over seeds."""
    curves = {"right": "right", "tokens": "length_curve", "past the low": "past_curve"}
    return [
        outcomes.chart(
            f"{regime}: {title}",
            arms,
            functools.partial(_by_step, field),
            drawn=_DRAWN,
            percent=title != "tokens",
            smooth=True,
        )
        for regime, arms in found.items()
        for title, field in curves.items()
    ]


def _by_step(field: str, run: Outcome) -> tuple[np.ndarray, np.ndarray]:
    values = getattr(run, field)
    return np.arange(1, len(values) + 1), values
