"""Progress lines and the final table, captured."""

import io
import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from grpo_jax.reporting import terminal

METRICS = {
    "reward/mean": 0.71,
    "reward/accuracy": 0.615,
    "rollout/completion_tokens_mean": 33.2,
    "rollout/tokens_per_second": 18_240.0,
    "loss/total": None,
}


def plain_console(**options) -> Console:
    return Console(file=io.StringIO(), width=100, **options)


def said(console: Console) -> str:
    return console.file.getvalue()  # pyright: ignore


def run_progress(steps: int, **options) -> list[str]:
    """Reports one step every two seconds of a made-up clock."""
    console, now = plain_console(), [0.0]
    progress = terminal.Progress(
        "GRPO", steps, console=console, clock=lambda: now[0], **options
    )
    with progress:
        for step in range(1, steps + 1):
            now[0] += 2.0
            progress.update(step, METRICS)
    return said(console).splitlines()


def test_plain_lines_come_every_few_seconds_and_at_the_end():
    lines = run_progress(12, every_seconds=5.0)
    assert [line.split()[1] for line in lines] == [
        "1/12",
        "4/12",
        "7/12",
        "10/12",
        "12/12",
    ]
    assert lines[1] == (
        "GRPO 4/12  reward 0.71  pass rate 61.5%  length 33.2  tokens/s 18.2k  "
        "elapsed 0:08  left 0:16"
    )


def test_quiet_prints_nothing():
    assert run_progress(3, quiet=True) == []
    console = plain_console()
    terminal.print_results({}, {}, [{"prompt": "x"}], None, quiet=True, console=console)
    assert said(console) == ""


def test_a_resumed_run_measures_its_own_steps():
    now = [0.0]
    console = plain_console()
    progress = terminal.Progress(
        "GRPO",
        100,
        start_step=90,
        console=console,
        clock=lambda: now[0],
        every_seconds=0,
    )
    for step in (91, 92):
        now[0] += 10.0
        progress.update(step, {})
    assert said(console).splitlines()[-1] == "GRPO 92/100  elapsed 0:20  left 1:20"


def test_a_metric_that_is_absent_keeps_its_last_value():
    console = plain_console()
    progress = terminal.Progress("GRPO", 5, console=console, every_seconds=0)
    progress.update(1, {"reward/mean": 0.5})
    progress.update(2, {"reward/mean": None})
    progress.update(3, {"reward/mean": float("nan")})
    assert all("reward 0.5" in line for line in said(console).splitlines())


def test_a_sentence_has_a_line_of_its_own():
    console = plain_console()
    with terminal.Progress("GRPO", 2, console=console, every_seconds=0) as progress:
        progress.update(1, METRICS)
        progress.say("warning: [bold]loss[/bold] " + "x" * 200)
        progress.update(2, METRICS)
    first, second, third = said(console).splitlines()
    assert first.startswith("GRPO 1/2") and third.startswith("GRPO 2/2")
    assert second == "warning: [bold]loss[/bold] " + "x" * 200
    console = plain_console()
    terminal.Progress("GRPO", 2, console=console, quiet=True).say("x")
    assert said(console) == ""


def test_live_line_is_redrawn():
    console = plain_console(force_terminal=True)
    with terminal.Progress("warm start", 5, console=console, live=True) as progress:
        progress.update(2, {"loss": 1.25})
    assert "\x1b[?25l" in said(console)
    assert "2/5" in said(console)


def test_a_stream_that_is_no_terminal_is_never_live():
    assert not terminal.is_live(plain_console())
    assert not terminal.is_live(plain_console(force_terminal=True))


def test_a_log_holds_whole_plain_lines():
    code = (
        "from grpo_jax.reporting.terminal import Progress\n"
        "with Progress('GRPO', 2, every_seconds=0) as progress:\n"
        "    progress.update(1, {'reward/mean': 0.5})\n"
        "    progress.update(2, {'reward/mean': 0.6})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"FORCE_COLOR": "1", "COLUMNS": "20"},
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("GRPO 2/2  reward 0.6  elapsed 0:00")
    assert "\x1b" not in done.stdout


def test_an_encoding_that_knows_no_such_character_does_not_stop_the_run():
    code = (
        "from grpo_jax.reporting.terminal import print_results\n"
        "print_results(None, None, [{'prompt': '2 \u2212 1'}], None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert "2 ? 1" in done.stdout


def evaluation(mean: float) -> dict:
    return {
        "split": "test",
        "sampled": {"pass@1": {"mean": mean, "low": mean - 0.03, "high": mean + 0.03}},
        "greedy": None,
        "completion_tokens_mean": 40.0,
        "truncated_fraction": 0.25,
    }


def test_results_say_what_changed():
    console = plain_console()
    sample = {"prompt": "1 + 1", "completion": "= 2", "reward": 1.1, "reference": "2"}
    terminal.print_results(
        evaluation(0.41),
        evaluation(0.73),
        [sample],
        Path("out/report.html"),
        console=console,
    )
    lines = said(console).splitlines()
    [row] = [line for line in lines if line.startswith("pass@1")]
    assert " ".join(row.split()) == (
        "pass@1 41.0% (38.0 to 44.0) 73.0% (70.0 to 76.0) +32.0 points"
    )
    [cut] = [line for line in lines if line.startswith("truncated")]
    assert cut.split() == ["truncated", "25.0%", "25.0%", "0.0", "points"]
    assert not any("greedy" in line for line in lines)
    assert "reward 1.1  reference 2" in lines
    assert lines[-1] == "report: out/report.html"


def test_an_evaluation_may_be_missing():
    console = plain_console()
    terminal.print_results(None, evaluation(0.7), [], None, console=console)
    assert "70.0%" in said(console)


def test_completions_cannot_steer_the_terminal():
    console = plain_console(force_terminal=True)
    evil = "a\x1b[2J\x07 [bold red]b[/] \u202eright to left \x9b31m"
    terminal.print_results(
        None, None, [{"prompt": evil, "completion": evil}], None, console=console
    )
    out = said(console)
    assert "\x1b[2J" not in out
    assert not {"\x07", "\x9b", "\u202e"} & set(out)
    assert "[bold red]b[/]" in out


def test_samples_are_of_different_groups_and_spread_by_reward():
    rows = [
        {"group": group, "sample": sample, "reward": float(group)}
        for group in (4, 0, 2, 1, 3)
        for sample in range(3)
    ]
    chosen = terminal.choose_samples(rows)
    assert [(row["group"], row["sample"]) for row in chosen] == [(0, 0), (2, 0), (4, 0)]
    assert len(terminal.choose_samples(rows[:3])) == 1
    assert terminal.choose_samples([]) == []


def test_notes_stand_above_the_report(capsys):
    notes = ["best: step 3", "ended at step 9: because"]
    terminal.print_results(None, None, [], Path("r.html"), notes=notes)
    assert capsys.readouterr().out.split("\n")[1:] == [*notes, "report: r.html", ""]
