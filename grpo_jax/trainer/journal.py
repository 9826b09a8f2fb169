"""Completions of an evaluation, kept as they are made, so that a stop loses few.

A journal is a file of JSON lines: first everything that the completions depend on, then
one line a completion. Opened again under the same settings it gives back what it holds;
under others it begins anew.
"""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.reporting import terminal
from grpo_jax.rewards.base import Completion, turns_of_row, turns_to_row

Settings = dict[str, Any]
# Completions made at once, in multiples of the rows that are decoded at once: while the
# last ones of a part are made, places stay empty. Parts begin and end at the same
# problems after a stop, so that even rounding is as it would have been.
_PART_ROWS = 8


class Journal:
    """The completions of one evaluation that are known, and the file they are in."""

    def __init__(self, path: pathlib.Path, settings: Settings):
        """Opens NAME.jsonl.partial, or what NAME.jsonl and NAME.json hold.

        Args:
          path: of NAME.json, in a directory that exists.
          settings: all that the completions depend on, as JSON can hold it.
        """
        self.path = path.with_suffix(".jsonl.partial")
        self.settings = settings
        self._rows: dict[tuple[int, int], dict[str, Any]] = {}
        if self.path.exists():
            self._continue(_complete_lines(self.path))
        elif path.exists() and path.with_suffix(".jsonl").exists():
            done = _parse(path, path.read_text(encoding="utf-8"))
            header = json.dumps({"settings": done.get("settings", {})})
            lines = path.with_suffix(".jsonl").read_text(encoding="utf-8")
            self._continue([header, *lines.split("\n")[:-1]])
        self._file = self._begin()

    def fill(
        self,
        prompts: Sequence[EncodedPrompt],
        samples: int,
        max_rows: int,
        complete: Callable[[Sequence[EncodedPrompt]], list[Completion]],
    ) -> list[Completion]:
        """Returns the completions of every problem, made now where they are not known.

        Args:
          prompts: the problems.
          samples: completions of each.
          max_rows: completions that are decoded at once.
          complete: makes the completions of some problems, those of one adjacent.
        """
        part = max(1, _PART_ROWS * max_rows // samples)
        for first in range(0, len(prompts), part):
            chosen = prompts[first : first + part]
            keys = [(p.example.id, s) for p in chosen for s in range(samples)]
            if all(key in self._rows for key in keys):
                continue
            made = complete(chosen)
            for key, completion in zip(keys, made, strict=True):
                self._add(key, completion)
            self._file.flush()
            done = first + len(chosen)
            terminal.say(f"{self.path.stem}: {done} of {len(prompts)} problems")
        return [
            self._completion(prompt, group, sample)
            for group, prompt in enumerate(prompts)
            for sample in range(samples)
        ]

    def discard(self) -> None:
        """Removes the file, once all that it holds is elsewhere."""
        self._file.close()
        self.path.unlink()

    def _continue(self, lines: list[str]) -> None:
        """Takes completions from lines, if they were made under these settings."""
        name = self.path.name.removesuffix(".partial")
        old = _parse(self.path, lines[0]).get("settings", {}) if lines else {}
        changed = [
            f"{key} was {old.get(key)} and is {value}"
            for key, value in self.settings.items()
            if old.get(key) != value
        ]
        if changed:
            terminal.say(f"{name} begins anew: {'; '.join(changed)}")
            return
        for line in lines[1:]:
            row = _parse(self.path, line)
            self._rows[row["problem"], row["sample"]] = row
        terminal.say(
            f"{name} goes on with {len(self._rows)} completions that are known"
        )

    def _begin(self) -> TextIO:
        """Returns the file, written anew with what is known."""
        file = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with file.open("w", encoding="utf-8") as out:
            for line in ({"settings": self.settings}, *self._rows.values()):
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
        os.replace(file, self.path)
        return self.path.open("a", encoding="utf-8")

    def _add(self, key: tuple[int, int], completion: Completion) -> None:
        row = {
            "problem": key[0],
            "sample": key[1],
            "completion": completion.text,
            "completion_tokens": completion.num_tokens,
            "sampled_tokens": completion.sampled_tokens,
            "finished": completion.finished,
            **turns_to_row(completion.turns),
        }
        self._rows[key] = row
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _completion(self, prompt: EncodedPrompt, group: int, sample: int) -> Completion:
        row = self._rows[prompt.example.id, sample]
        return Completion(
            prompt=prompt.text,
            text=row["completion"],
            reference=prompt.example.reference,
            num_tokens=row["completion_tokens"],
            finished=row["finished"],
            group=group,
            columns=prompt.example.columns,
            max_tokens=self.settings["max_completion_tokens"],
            turns=turns_of_row(row),
            sampled_tokens=row.get("sampled_tokens", 0),
        )


def _parse(path: pathlib.Path, text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): remove it to evaluate from the beginning"
        ) from error


def _complete_lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of a file but the last, if it has no end."""
    return path.read_bytes().decode("utf-8", errors="ignore").split("\n")[:-1]
