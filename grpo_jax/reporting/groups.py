"""The groups of completions a page carries: a fair, bounded choice from rollouts/."""

from collections.abc import Sequence
from typing import Any

from grpo_jax.reporting.turns import gold_documents, turns_of
from grpo_jax.reporting.workdir import Row, Run, mapping, number, read_rollout

# What a page may carry, over all its runs.
MAX_GROUPS = 200
MAX_CHARACTERS = 6_000_000
# Groups of one step, where not every step can be shown in full.
_GROUPS_A_STEP = 8
_LONGEST_TEXT, _SHORTEST_TEXT = 8_000, 400


def embedded_groups(runs: Sequence[Run], notes: list[str]) -> list[dict[str, Any]]:
    """Returns the groups of each run that a page shows, as JSON values.

    All of them if there are few; otherwise the first, the last and evenly spaced steps,
    and of each step its first groups. Nothing is chosen by its reward.

    Args:
      runs: the runs, in the order of the page.
      notes: gains sentences about files that could not be read.

    Returns:
      For each run with rollouts: name, left_out (a sentence or ""), the weights of its
      rewards, mask_truncated (whether it trained on no truncated completion) and steps.
    """
    found = []
    for run in runs:
        steps, total_groups = _choose(run, MAX_GROUPS // len(runs), notes)
        if steps:
            said = _left_out(steps, len(run.rollout_steps), total_groups)
            found.append(
                {
                    "name": run.name,
                    "steps": steps,
                    "left_out": said,
                    "weights": _weights(run),
                    "mask_truncated": _masks_truncated(run),
                }
            )
    longest = _shorten(found)
    for run in found:
        if longest is not None:
            run["left_out"] += f" Texts are cut to {longest:,} characters."
    return found


def group_rows(rows: Sequence[Row]) -> dict[Any, list[Row]]:
    """Returns the completions of a step by group, in the order they were written."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row.get("group")), []).append(row)
    return groups


def evenly_spaced(items: Sequence[Any], count: int) -> list[Any]:
    """Returns `count` of `items` with equal gaps, the first and the last included."""
    if len(items) <= count:
        return list(items)
    if count == 1:
        return [items[-1]]
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _choose(run: Run, limit: int, notes: list[str]) -> tuple[list[Row], int]:
    """Returns the chosen steps with their groups, and the groups a step really has."""
    if not run.rollout_steps:
        return [], 0
    # Reading every file of a long run would take minutes; the last one tells how many
    # groups there are in each.
    last = group_rows(read_rollout(run.path, run.rollout_steps[-1], []))
    per_step = len(last)
    if per_step * len(run.rollout_steps) > limit:
        per_step = min(per_step, _GROUPS_A_STEP, limit)
    count = max(1, limit // max(per_step, 1))
    steps = []
    for step in evenly_spaced(run.rollout_steps, count):
        groups = group_rows(read_rollout(run.path, step, notes))
        shown = [_group(rows) for rows in list(groups.values())[:per_step]]
        if shown:
            steps.append({"step": step, "groups": shown})
    return steps, len(last)


def _left_out(steps: list[Row], all_steps: int, all_groups: int) -> str:
    parts = []
    if len(steps) < all_steps:
        parts.append(f"{len(steps)} of {all_steps} steps, evenly spaced")
    shown = len(steps[-1]["groups"])
    if shown < all_groups:
        parts.append(f"{shown} of about {all_groups} groups of each step")
    return f"Shown here: {'; '.join(parts)}. All are in rollouts/." if parts else ""


def _weights(run: Run) -> dict[str, float]:
    weights = mapping(mapping(run.config.get("reward")).get("weights"))
    known = {str(name): number(value) for name, value in weights.items()}
    return {name: value for name, value in known.items() if value is not None}


def _masks_truncated(run: Run) -> bool:
    return mapping(run.config.get("objective")).get("mask_truncated") is True


def _group(rows: Sequence[Row]) -> Row:
    first = rows[0]
    golds = [title for title, _ in gold_documents(first)]
    return {
        "prompt": _text(first.get("prompt")),
        "prompt_id": _text(first.get("prompt_id")),
        "reference": _text(first.get("reference")),
        "rows": [_completion(row) for row in rows],
        **({"golds": golds} if golds else {}),
    }


def _completion(row: Row) -> Row:
    rewards = mapping(row.get("rewards"))
    completion = {
        "text": _text(row.get("completion")),
        "rewards": {str(name): number(value) for name, value in rewards.items()},
        "reward": number(row.get("reward")),
        "advantage": number(row.get("advantage")),
        "tokens": number(row.get("completion_tokens")),
        "finished": row.get("finished") if row.get("finished") is not None else True,
        "origins": _origins(row.get("spans")),
    }
    if turns := turns_of(row):
        # The turns are the text; notes speak of samples by their number.
        completion |= {"text": "", "turns": turns, "sample": number(row.get("sample"))}
    if note := row.get("note"):
        completion["note"] = _text(note)
    return completion


def _origins(spans: Any) -> str:
    """Returns "guidance 12, sampled 40" where not every token was sampled."""
    counts: dict[str, int] = {}
    for span in spans if isinstance(spans, list) else []:
        if isinstance(span, list) and len(span) == 3:
            name, start, end = span
            if isinstance(start, int) and isinstance(end, int):
                counts[str(name)] = counts.get(str(name), 0) + end - start
    if set(counts) <= {"sampled"}:
        return ""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _shorten(runs: Sequence[Row]) -> int | None:
    """Cuts texts in place to a common length; returns it if any was cut."""
    groups = [g for run in runs for step in run["steps"] for g in step["groups"]]
    texts = [_holders(row) for group in groups for row in group["rows"]]
    texts += [[(group, "prompt")] for group in groups]
    total = sum(len(holder[key]) for text in texts for holder, key in text)
    longest = _LONGEST_TEXT
    if total > MAX_CHARACTERS:
        longest = min(longest, max(_SHORTEST_TEXT, MAX_CHARACTERS // len(texts)))
    cut = False
    for text in texts:
        most = _longest_part([len(holder[key]) for holder, key in text], longest)
        for holder, key in text:
            if len(holder[key]) > most:
                holder[key] = _both_ends(holder[key], most)
                cut = True
    return longest if cut else None


def _holders(row: Row) -> list[tuple[Any, Any]]:
    """Returns where the parts of a completion are: (object, key)."""
    if "turns" not in row:
        return [(row, "text")]
    found: list[tuple[Any, Any]] = []
    for turn in row["turns"]:
        found += [(part, 1) for part in turn["parts"]]
        found += [(turn, "query"), (turn, "observation")]
    return found


def _longest_part(lengths: Sequence[int], most: int) -> int:
    """Returns the length to which parts are cut so that they are `most` in all.

    Short parts stay whole, and leave what they do not need to the others.
    """
    left, longest = most, most
    for at, length in enumerate(sorted(lengths)):
        longest = left // (len(lengths) - at)
        if length > longest:
            return max(longest, 1)
        left -= length
    return most


def _both_ends(text: str, longest: int) -> str:
    # The end holds the final result, so both ends stay.
    head, tail = text[: longest * 2 // 3], text[-longest // 3 :]
    missing = len(text) - len(head) - len(tail)
    return f"{head}\n\n[… {missing:,} characters …]\n\n{tail}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)
