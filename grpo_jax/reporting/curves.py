"""Which charts a report shows, in which order, and under which heading."""

import dataclasses
from collections.abc import Callable, Sequence

from grpo_jax.reporting import agents
from grpo_jax.reporting.evaluations import pass_at_one, title
from grpo_jax.reporting.plots import Marker, Series, line_chart
from grpo_jax.reporting.workdir import (
    Number,
    Point,
    Row,
    Run,
    mapping,
    metric_keys,
    number,
    series,
)


@dataclasses.dataclass(frozen=True)
class Chart:
    """How one metric is drawn."""

    key: str
    title: str
    unit: str = ""
    percent: bool = False
    smooth: bool = True


_REWARD = [Chart("reward/mean", "Reward", "mean of the step")]
_GROUPS = [
    Chart("reward/std_in_group", "Reward spread", "std in a group"),
    Chart("reward/advantage_std", "Advantage spread", "std of the step"),
    Chart("reward/zero_variance_fraction", "Groups that teach nothing", "", True),
    Chart("reward/unscored_fraction", "Completions without a reward", "", True),
]
_COMPLETIONS = [
    Chart("rollout/completion_tokens_mean", "Completion length", "tokens"),
    Chart("rollout/completion_tokens_max", "Longest completion", "tokens"),
    Chart("rollout/generated_tokens", "Generated", "tokens in the step"),
    Chart("rollout/tier_mean", "Tier of the prompts", "mean", smooth=False),
    Chart("rollout/truncated_fraction", "Truncated completions", "", True),
]
_AGENTS = [
    Chart("episode/calls_mean", "Calls", "an episode"),
    Chart("episode/calls_max", "Most calls", "an episode"),
    Chart("episode/no_call_fraction", "Episodes without a call", "", True),
    Chart("episode/coverage_mean", "Evidence coverage", "", True),
    Chart("episode/useful_call_fraction", "Calls that raise the coverage", "", True),
    Chart("episode/surplus_call_fraction", "Calls after full coverage", "", True),
    Chart("episode/over_search_fraction", "Episodes that search on", "", True),
    Chart("episode/premature_stop_fraction", "Episodes that stop early", "", True),
    Chart("episode/calls_hops_spearman", "Calls with hops", "rank correlation"),
    Chart("episode/repeated_query_fraction", "Repeated queries", "", True),
    Chart("episode/near_duplicate_fraction", "Near-duplicate queries", "", True),
    Chart("episode/new_document_fraction", "New documents", "", True),
    Chart("episode/malformed_fraction", "Malformed queries", "", True),
    Chart("episode/refused_fraction", "Episodes that ask too often", "", True),
    Chart("episode/failed_fraction", "Failed retrievals", "", True),
]
_POLICY = [
    Chart("policy/entropy", "Entropy", "nats a token"),
    Chart("loss/kl", "KL to the reference", "nats a token"),
    Chart("policy/clip_fraction", "Clipped tokens", "", True),
    Chart("policy/ratio_max", "Largest importance ratio"),
    Chart("policy/sampler_gap_mean", "Sampler gap", "|Δ log-prob|"),
    Chart("loss/total", "Loss"),
    Chart("optimizer/gradient_norm", "Gradient norm"),
    Chart("optimizer/learning_rate", "Learning rate", smooth=False),
]
_GUIDANCE = [
    Chart("guidance/length", "Guidance length", "tokens", smooth=False),
    Chart("guidance/reward_unguided", "Signal of unguided rows", "mean of the step"),
    Chart("guidance/reward_guided", "Signal of guided rows", "mean of the step"),
    Chart("guidance/reward_gap", "Guided less unguided", "mean of the step"),
    Chart("guidance/rescued_fraction", "Groups rescued by guidance", "", True),
    Chart("guidance/guided_fraction", "Guided rows", "", True, smooth=False),
    Chart("guidance/given_tokens_mean", "Tokens given", "a guided row"),
    Chart("guidance/generated_tokens_mean", "Tokens generated", "a guided row"),
    Chart("guidance/trace_share", "Share of the trace given", "", True),
    Chart("guidance/exhausted_fraction", "Traces shorter than the length", "", True),
    Chart("guidance/no_trace_fraction", "Prompts without a trace", "", True),
    Chart("guidance/at_bound", "Length at a bound", "", True),
    Chart("guidance/length_ratio", "Change of the length", "factor"),
    Chart("guidance/nll", "Guidance: negative log-prob", "nats a token"),
    Chart("guidance/entropy", "Guidance: entropy", "nats a token"),
    Chart("guidance/kl", "Guidance: KL to the reference", "nats a token"),
    Chart("guidance/clip_fraction", "Guidance: clipped tokens", "", True),
]
_SUBSTITUTES = [
    Chart("expert/seeded_fraction", "Groups with an expert", "", True),
    Chart("expert/unknown_fraction", "Failing groups without one", "", True),
    Chart("expert/too_long_fraction", "Experts that do not fit", "", True),
    Chart("expert/failed_fraction", "Experts that were not answered", "", True),
    Chart("expert/coverage_mean", "Evidence that experts found", "", True),
    Chart("expert/nll", "Expert: negative log-prob", "nats a token"),
    Chart("expert/ratio_mean", "Expert: importance ratio"),
    Chart("expert/clip_fraction", "Expert: clipped tokens", "", True),
    Chart("expansion/expanded_fraction", "Groups that go on", "", True),
    Chart("expansion/found_more_fraction", "Of them, that find more", "", True),
    Chart("expansion/replaced_fraction", "Of them, with a better row", "", True),
    Chart("expansion/continuations", "Continuations", "of the step"),
    Chart("expansion/generated_tokens", "Tokens of continuations", "of the step"),
]
_BUDGET = [
    Chart("budget/cost_mean", "Cost", "mean of the step"),
    Chart("budget/right_cost_mean", "Cost of right completions", "mean of the step"),
    Chart("budget/beta", "Weight of costs (beta)", smooth=False),
    Chart("budget/penalty_mean", "Penalty for costs", "mean of right completions"),
    Chart("budget/over_fraction", "Costs above what is free", "", True),
    Chart("budget/calls_above_evidence", "Calls above gold documents", "mean"),
    Chart("budget/calls_below_evidence", "Calls below gold documents", "mean"),
    Chart("budget/max_calls", "Calls that are allowed", smooth=False),
    Chart("budget/exit_fraction", "Episodes that were sure and ended", "", True),
    Chart("budget/probe_tokens", "Tokens of probes", "mean of the step"),
    Chart("budget/near_duplicate_fraction", "Near-duplicate queries", "", True),
    Chart("budget/stale_call_fraction", "Calls without a new document", "", True),
    Chart("budget/redundant_fraction", "Calls of no use", "", True),
    Chart(
        "budget/redundancy_penalty_mean",
        "Penalty for calls of no use",
        "mean of right completions",
    ),
]
# Drawn with their bounds by health.py.
HEALTH = [
    Chart("rollout/script_fraction", "Letters of the script", "", True),
    Chart("rollout/repeated_fraction", "Repeated n-grams", "", True),
    Chart("reward/all_wrong_fraction", "Groups all wrong", "", True),
    Chart("reward/all_right_fraction", "Groups all right", "", True),
    Chart("reward/length_correlation", "Reward with length", "correlation"),
    Chart(
        "reward/length_correlation_in_group",
        "Reward with length in groups",
        "correlation",
    ),
    Chart("loss/kl_p95", "KL: 95th percentile", "nats a token"),
    Chart("loss/kl_max", "KL: largest", "nats a token"),
    Chart("policy/ratio_p99", "Importance ratio: 99th percentile"),
    Chart("policy/ratio_min", "Smallest importance ratio"),
]
SPREAD = "reward_std_in_group/"
_SPEED = [
    Chart("rollout/tokens_per_second", "Rollout speed", "tokens per second"),
    Chart("time/step_seconds", "Step time", "seconds"),
    Chart("time/rollout_seconds", "Rollout time", "seconds"),
    Chart("time/reward_seconds", "Reward time", "seconds"),
    Chart("time/update_seconds", "Update time", "seconds"),
]
_WARM_START = [
    Chart("loss", "Warm-start loss", "nats a token"),
    Chart("optimizer/learning_rate", "Warm-start learning rate", smooth=False),
]


def sections(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Returns (heading, charts) for all that the runs measured.

    Several runs share each chart, one colour each, in the order given. A metric this
    file does not name is drawn under "Other", so nothing that was logged is hidden.
    """

    def of_metrics(run: Run) -> list[Row]:
        return run.metrics

    def of_warm_start(run: Run) -> list[Row]:
        return run.warm_start

    parts = [
        chart
        for key in metric_keys(runs)
        if key.startswith("reward/") and not _is_named(key)
        for chart in [Chart(key, f"{_spoken(key)} reward", "mean of the step")]
    ]
    others = [
        chart_of(key)
        for key in metric_keys(runs)
        if not _is_named(key) and not key.startswith(("reward/", "evaluation/", SPREAD))
    ]
    learning = _draw(_REWARD, runs, of_metrics) + evaluation_charts(runs)
    costs = [chart for split in _splits(runs) if (chart := _length_chart(runs, split))]
    found = [
        ("Learning", learning + _draw([*parts, *_GROUPS], runs, of_metrics)),
        ("Accuracy by length", costs),
        ("Completions", _draw(_COMPLETIONS, runs, of_metrics)),
        ("Agents", _draw(_AGENTS, runs, of_metrics) + agents.family_charts(runs)),
        ("Guidance", _ladder_chart(runs) + _draw(_GUIDANCE, runs, of_metrics)),
        ("Experts and continuations", _draw(_SUBSTITUTES, runs, of_metrics)),
        ("Budget", _draw(_BUDGET, runs, of_metrics)),
        ("Policy and optimizer", _draw(_POLICY, runs, of_metrics)),
        ("Speed", _draw(_SPEED, runs, of_metrics)),
        ("Warm start", _draw(_WARM_START, runs, of_warm_start, "warm-start step")),
        ("Other", _draw(others, runs, of_metrics)),
    ]
    return [(heading, charts) for heading, charts in found if charts]


def chart_of(key: str) -> Chart:
    """Returns how a metric of a step is drawn, whatever it is."""
    if key.startswith(SPREAD):
        title = f"{_spoken(key.removeprefix(SPREAD))} spread"
        return Chart(key, title, "std in a group")
    if family := agents.family_of(key):
        title = agents.member_title(family, key)
        return Chart(key, title, family.unit, family.percent)
    named = [chart for chart in _named() if chart.key == key]
    return named[0] if named else Chart(key, key, percent=key.endswith("_fraction"))


def evaluation_charts(runs: Sequence[Run]) -> list[str]:
    """Returns pass@1 over the steps with its intervals, one chart a split."""
    charts = []
    for split in _splits(runs):
        lines = [
            Series(run.name, markers=_markers(run, split), colour=index)
            for index, run in enumerate(runs)
        ]
        # Before and after are in the table already; a curve needs a third point.
        if max(len(line.markers) for line in lines) > 2:
            charts.append(line_chart("pass@1", lines, unit=split, percent=True))
    if not charts:
        chart = Chart("evaluation/pass@1", "pass@1", percent=True, smooth=False)
        charts = _draw([chart], runs, lambda run: run.metrics)
    return charts


def _length_chart(runs: Sequence[Run], split: str) -> str:
    """Returns pass@1 if completions were cut after fewer tokens; "" if not known.

    Of one run its first and its last evaluation, of several the last of each.
    """
    lines = []
    for index, run in enumerate(runs):
        of_split = [row for row in run.evaluations if row.get("split") == split]
        chosen = of_split[-1:] if len(runs) > 1 else [*of_split[:1], *of_split[1:][-1:]]
        for row in chosen:
            alone = len(runs) == 1
            label, colour = (title(row), len(lines)) if alone else (run.name, index)
            lines.append(Series(label, _lengths(row), colour=colour))
    return line_chart(
        "pass@1 within a length",
        lines,
        unit=split,
        x_label="tokens",
        percent=True,
        smooth=False,
    )


def _lengths(row: Row) -> list[Point]:
    points = row.get("accuracy_by_length")
    found = []
    for point in map(mapping, points if isinstance(points, list) else []):
        tokens, value = number(point.get("tokens")), number(point.get("accuracy"))
        if tokens is not None and value is not None:
            found.append((tokens, value))
    return found


def _splits(runs: Sequence[Run]) -> list[str]:
    """Returns what was evaluated: splits of the task and benchmarks."""
    rows = [row for run in runs for row in run.evaluations]
    return list(dict.fromkeys(str(row.get("split", "")) for row in rows))


def _markers(run: Run, split: str) -> list[Marker]:
    found: dict[Number, Marker] = {}
    for row in run.evaluations:
        step, estimate = number(row.get("step")), pass_at_one(row)
        if str(row.get("split", "")) == split and estimate and step is not None:
            found[step] = Marker(step, estimate.value, estimate.low, estimate.high)
    return [found[step] for step in sorted(found)]


def _ladder_chart(runs: Sequence[Run]) -> list[str]:
    """Returns how right the starting policy is after more and more of a trace."""
    lines = [
        Series(run.name, markers=_rungs(run), colour=index)
        for index, run in enumerate(runs)
    ]
    chart = line_chart(
        "Guidance ladder",
        lines,
        unit="signal before the first step",
        x_label="guidance length",
    )
    return [chart] if chart else []


def _rungs(run: Run) -> list[Marker]:
    rungs = run.ladder.get("rungs")
    found = []
    for rung in map(mapping, rungs if isinstance(rungs, list) else []):
        length, mean = number(rung.get("length")), number(rung.get("mean"))
        if length is not None and mean is not None:
            low, high = number(rung.get("low")), number(rung.get("high"))
            found.append(Marker(length, mean, low, high))
    return found


def _draw(
    charts: Sequence[Chart],
    runs: Sequence[Run],
    rows: Callable[[Run], list[Row]],
    x_label: str = "step",
) -> list[str]:
    drawn = []
    for chart in charts:
        lines = [
            Series(run.name, series(rows(run), chart.key), colour=index)
            for index, run in enumerate(runs)
        ]
        drawn.append(
            line_chart(
                chart.title,
                lines,
                unit=chart.unit,
                x_label=x_label,
                percent=chart.percent,
                smooth=chart.smooth,
            )
        )
    return [svg for svg in drawn if svg]


def _named() -> list[Chart]:
    step = [*_REWARD, *_GROUPS, *_COMPLETIONS, *_GUIDANCE, *_POLICY, *_SPEED]
    return [*step, *_AGENTS, *_SUBSTITUTES, *_BUDGET, *HEALTH]


def _is_named(key: str) -> bool:
    known = any(chart.key == key for chart in _named())
    return known or agents.family_of(key) is not None


def _spoken(key: str) -> str:
    name = key.removeprefix("reward/").rpartition(":")[2].replace("_", " ")
    return name[:1].upper() + name[1:]
