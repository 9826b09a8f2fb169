"""What `python -m grpo_jax.plan` prints: memory, largest batches, time and price."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from grpo_jax.reporting.scales import format_number
from grpo_jax.reporting.terminal import print_plain, printable, stdout_console

Row = dict[str, Any]


def print_plan(plan: Row, *, console: Console | None = None) -> None:
    """Prints a plan, as `forecast.as_data` gives it."""
    console = console or stdout_console()
    axes = ", ".join(f"{name}={size}" for name, size in plan["mesh"].items())
    device = f"{math.prod(plan['mesh'].values())} x {printable(plan['device'])}"
    print_plain(
        console,
        f"{format_number(plan['parameters'])} parameters, {plan['dtype']}, remat "
        f"{plan['remat']}, on {device} ({axes})",
    )
    console.print()
    console.print(_memory(plan))
    console.print()
    for line in (*_sizes(plan), *_speed(plan)):
        print_plain(console, line)


def _memory(plan: Row) -> Table:
    """Returns the parts of each moment, and their sum."""
    moments = plan["moments"]
    sums = {name: sum(parts.values()) for name, parts in moments.items()}
    largest = max(sums.values())
    unit, size = ("GB", 1e9) if largest >= 1e9 else ("MB", 1e6)

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value / size:,.2f}"

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(f"{unit} on each device", no_wrap=True)
    for name in moments:
        table.add_column(name, justify="right", no_wrap=True)
    # What all moments hold comes first.
    names = dict.fromkeys(name for parts in moments.values() for name in parts)
    for name in names:
        table.add_row(name, *(cell(parts.get(name)) for parts in moments.values()))
    table.add_row("sum", *map(cell, sums.values()), style="bold")
    table.add_row("usable", *[cell(plan["limit_bytes"])] * len(moments))
    return table


def _sizes(plan: Row) -> list[str]:
    """Returns lines on the batches."""
    return [
        f"rollout batch  {plan['rows']:,} rows at once (config.rollout.max_rows), "
        f"{plan['largest_rows']:,} fit; a step has {plan['rows_of_a_step']:,}",
        f"micro-batch    {plan['micro_batch_tokens']:,} tokens "
        f"(config.trainer.micro_batch_tokens), {plan['largest_micro_batch_tokens']:,} "
        f"fit; an update has {plan['tokens_of_an_update']:,}",
    ]


def _speed(plan: Row) -> list[str]:
    """Returns lines on time and price."""
    speed, price = plan["speed"], plan["price_per_hour"]
    if speed is None:
        return [f"time           no figures of {printable(plan['device'])} are known"]
    lines = []
    for name, phase in (("rollouts", "rollout"), ("updates", "update")):
        rate = format_number(speed[f"{phase}_tokens_per_second"])
        reached, hours = plan["efficiency"][phase], speed[f"{phase}_hours"]
        lines.append(
            f"{name:<14} {rate} tokens/s at {reached:.0%} of the roofline (assumed): "
            f"{_time(hours)}"
        )
    hours = speed["rollout_hours"] + speed["update_hours"]
    left_out = "evaluations and refilled groups" if plan["refills"] else "evaluations"
    cost = f" and ${hours * price:,.2f}" if price else ""
    lines.append(
        f"together       {_time(hours)}{cost} for {plan['steps']:,} steps with "
        f"{speed['prompt_tokens']:,} + {speed['completion_tokens']:,} tokens a row "
        f"(half of the limits), without {left_out}"
    )
    return lines


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 0.95 else f"{60 * hours:.1f} min"
