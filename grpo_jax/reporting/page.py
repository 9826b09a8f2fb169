"""One self-contained HTML page of a run, or of several side by side.

Everything is inside the file: styles, script, charts and completions. A completion is
untrusted text: it travels as JSON, is shown with textContent, and the page's content
security policy runs no script but the one whose hash it names.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpo_jax.reporting import curves, health, tables
from grpo_jax.reporting.evaluations import before_and_after, pass_at_one
from grpo_jax.reporting.files import package_text, write_atomically
from grpo_jax.reporting.groups import embedded_groups
from grpo_jax.reporting.scales import format_number
from grpo_jax.reporting.workdir import Number, Run, flatten, mapping, number, read_run


def write_report(workdirs: Sequence[Path], output: Path) -> None:
    """Writes the page of one or more workdirs, finished or not, atomically.

    Args:
      workdirs: what the trainer wrote; several are compared.
      output: the .html file.

    Raises:
      ValueError: a workdir does not exist or holds nothing of a run yet.
    """
    if not workdirs:
        raise ValueError("workdirs is empty: name at least one workdir")
    runs = [read_run(path) for path in workdirs]
    write_atomically(output, page(runs, Path(output).parent))


def page(runs: Sequence[Run], folder: Path) -> str:
    """Returns the page as HTML text; files of the runs are named from `folder`."""
    notes = [note for run in runs for note in run.notes]
    groups = embedded_groups(runs, notes)
    body = [
        _header(runs),
        tables.notes(notes),
        '<section id="results"><h2>Results</h2>',
        _results(runs),
        "</section>",
        _curves(runs),
        health.section(runs, folder),
        _browser(groups),
        _configuration(runs),
    ]
    return _document(_title(runs), "".join(body), groups)


def _document(title: str, body: str, groups: Any) -> str:
    script = package_text("page.js")
    digest = hashlib.sha256(script.encode()).digest()
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{base64.b64encode(digest).decode()}'"
    )
    # "<" cannot occur in the data, so no text can end its element.
    data = json.dumps(groups, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{package_text('chart.css')}{package_text('page.css')}</style>"
        f"</head><body><main>{body}</main>"
        f'<script type="application/json" id="groups-data">{data}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def _title(runs: Sequence[Run]) -> str:
    return runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"


def _header(runs: Sequence[Run]) -> str:
    links = "".join(
        f'<a href="#{name.lower()}">{name}</a>'
        for name in ("Results", "Curves", "Health", "Completions", "Configuration")
    )
    names = ", ".join(run.name for run in runs)
    about = _about(runs[0]) if len(runs) == 1 else names
    state = tables.state(runs[0]) if len(runs) == 1 else ""
    return (
        f"<header><nav>{links}</nav>"
        f"<h1>{html.escape(_title(runs))} {state}</h1>"
        f'<p class="about">{html.escape(about)}</p></header>'
    )


def _about(run: Run) -> str:
    """Returns what was trained, from the configuration."""
    config = flatten(run.config)
    model = config.get("policy.path") or config.get("policy.preset")
    parts = []
    if model:
        task = config.get("task.name")
        parts.append(f"{model} on {task}" if task else str(model))
    if loss := config.get("objective.loss"):
        parts.append(f"{loss} loss")
    prompts = config.get("rollout.prompts_per_step")
    if prompts:
        size = config.get("rollout.group_size")
        parts.append(f"{prompts} prompts × {size} completions a step")
    rate = number(config.get("optimizer.learning_rate"))
    if rate is not None:
        parts.append(f"learning rate {rate:g}")
    if "seed" in config:
        parts.append(f"seed {config['seed']}")
    return " · ".join(parts) or "config.json is absent"


def _results(runs: Sequence[Run]) -> str:
    if len(runs) > 1:
        return tables.runs_table(runs)
    run = runs[0]
    before, after = before_and_after(run)
    table = tables.before_after(before, after, _confidence(run))
    return _tiles(run) + table + tables.seconds(run) + tables.all_evaluations(run)


def _tiles(run: Run) -> str:
    """Returns the few numbers that say how the run went."""
    found = []
    before, after = (pass_at_one(row) for row in before_and_after(run))
    if before and after:
        change = 100 * (after.value - before.value)
        detail = f"{change:+.1f} points, from {100 * before.value:.1f}%"
        found.append(("pass@1", f"{100 * after.value:.1f}%", detail))
    elif single := after or before:
        found.append(("pass@1", f"{100 * single.value:.1f}%", ""))
    done = run.metrics[-1]["step"] if run.metrics else 0
    planned = number(flatten(run.config).get("trainer.steps"))
    found.append(
        (
            "GRPO steps",
            f"{done:,}",
            f"of {planned:,}" if planned not in (None, done) else "",
        )
    )
    total = number(mapping(run.summary.get("seconds")).get("total"))
    if total is None:
        total = sum(number(row.get("time/step_seconds")) or 0 for row in run.metrics)
    found.append(
        ("time", tables.duration(total), "all phases" if run.ended else "in steps")
    )
    speed = number(run.summary.get("tokens_per_second")) or tables.recent_mean(
        run, "rollout/tokens_per_second"
    )
    if speed:
        found.append(("tokens per second", format_number(speed), "generated"))
    tiles = "".join(
        f'<div class="tile"><span>{name}</span><b>{value}</b><i>{detail}</i></div>'
        for name, value, detail in found
    )
    return f'<div class="tiles">{tiles}</div>'


def _confidence(run: Run) -> Number:
    return number(flatten(run.config).get("evaluation.confidence")) or 0.95


def _curves(runs: Sequence[Run]) -> str:
    parts = [
        f'<h3>{heading}</h3><div class="charts">{"".join(map(_figure, charts))}</div>'
        for heading, charts in curves.sections(runs)
    ]
    hint = (
        '<p class="hint">Faint: each step. Strong: moving average. '
        "Hover, or touch, to read all charts at one step.</p>"
    )
    return f'<section id="curves"><h2>Curves</h2>{hint}{"".join(parts)}</section>'


def _figure(chart: str) -> str:
    return f"<figure>{chart}</figure>"


def _browser(groups: Sequence[dict[str, Any]]) -> str:
    if groups:
        inside = (
            '<p class="hint" id="left-out"></p><div id="browser">'
            "<noscript>This table needs JavaScript; the completions are in "
            "rollouts/.</noscript></div>"
        )
    else:
        inside = '<p class="hint">No completions were written to rollouts/.</p>'
    return f'<section id="completions"><h2>Completions</h2>{inside}</section>'


def _configuration(runs: Sequence[Run]) -> str:
    return (
        '<section id="configuration"><h2>Configuration</h2>'
        f"{tables.configuration(runs)}</section>"
    )
