"""What all peers are asked to do, and how they report it.

Every program here runs in an environment of its own, so this module needs numpy and
`tokenizers` only. What is fixed for all of them:

- token 0 pads; tokens 1 .. N end a completion where `--eos_ids=N` says so, and without
  it nothing does, so that every completion has the full length;
- prompts are uniform draws of the other tokens above 31, from one seed, so that the
  same `--seed` is the same prompts for everybody (`prompts` below);
- the reward is the fraction of even tokens: host work that costs next to nothing;
- a program prints one line of JSON, with the seconds of each repetition and the number
  of tokens that were asked for in it, so that useful tokens a second can be computed.

As a program it writes the tokenizer of these experiments, five digits a token, as
a directory that a model directory can be made with:

    python benchmarks/peers/protocol.py --vocab_size=4096 --output=DIR
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, pre_tokenizers

PAD_ID = 0
# Prompts hold no token below: 0 pads and the first ones may end a completion.
FIRST_PROMPT_ID = 32
# Arguments that say where, not what.
_PATHS = ("model", "out", "save")
# Threads that wait for others in turns (OpenMP) suffer most from a busy machine.
_LOAD_BEFORE = os.getloadavg()[0]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the flags that every program has."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--model", required=True, help="Hugging Face directory")
    flags.add_argument("--prompt_tokens", type=int, default=64)
    flags.add_argument("--repeats", type=int, default=5, help="that are measured")
    flags.add_argument("--warmups", type=int, default=1, help="before, not measured")
    flags.add_argument("--threads", type=int, default=2)
    flags.add_argument("--seed", type=int, default=0, help="of the prompts")
    flags.add_argument("--out", help="file for the JSON, beside standard output")
    return flags


def step_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser with the flags of a GRPO step."""
    flags = parser(description)
    flags.add_argument("--num_prompts", type=int, default=8, help="in a step")
    flags.add_argument("--group_size", type=int, default=8, help="completions of each")
    flags.add_argument("--max_new", type=int, default=128, help="tokens at most")
    flags.add_argument("--kl_coef", type=float, default=0.04)
    flags.add_argument("--learning_rate", type=float, default=1e-6)
    flags.add_argument(
        "--eos_ids", type=int, default=0, help="tokens 1 .. N end a completion"
    )
    return flags


def limit_threads(count: int) -> int:
    """Keeps this process to `count` cores; returns how many it has.

    To be called before a library starts its threads: XLA and OpenMP both make as many
    as the process may use cores.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:count]
        os.sched_setaffinity(0, cores)
        return len(cores)
    return min(count, os.cpu_count() or 1)


def vocab_size(model: str) -> int:
    """Returns the number of tokens a model directory knows."""
    return json.loads((pathlib.Path(model) / "config.json").read_text())["vocab_size"]


def prompts(seed: int, rows: int, tokens: int, vocab_size: int) -> np.ndarray:
    """Returns `rows` random prompts. int64 [rows, tokens]."""
    draw = np.random.default_rng(seed)
    return draw.integers(FIRST_PROMPT_ID, vocab_size, (rows, tokens))


def eos_ids(count: int, vocab_size: int) -> list[int]:
    """Returns the tokens that end a completion; never drawn when `count` is 0.

    A peer always has an end token. One behind the vocabulary is compared with every
    token that is drawn, and equal to none.
    """
    return list(range(1, count + 1)) or [vocab_size]


def tokenizer(vocab_size: int) -> tokenizers.Tokenizer:
    """Returns a tokenizer whose token i is `word(i)`, between spaces."""
    words = {word(id): id for id in range(vocab_size)}
    built = tokenizers.Tokenizer(models.WordLevel(words, unk_token=word(PAD_ID)))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return built


def word(id: int) -> str:
    """Returns a token's text.

    All are equally long: special tokens are searched for inside words too.
    """
    return f"{id:05d}"


def to_text(ids: Sequence[int]) -> str:
    """Returns the text that `tokenizer` reads as these tokens."""
    return " ".join(word(id) for id in ids)


def reward(completion: str) -> float:
    """Returns the fraction of even tokens of a completion's text."""
    words = completion.split()
    return sum(int(text) % 2 == 0 for text in words) / max(len(words), 1)


class Stopwatch:
    """Times the steps of somebody else's loop, from its hooks."""

    def __init__(self):
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.seconds_to_reward: list[float] = []
        self._lengths: list[list[int]] = []
        self.start()

    def start(self) -> None:
        """The loop starts."""
        self._last, self._last_cpu = time.perf_counter(), time.process_time()

    def rewards(self, lengths: Sequence[int]) -> None:
        """The step has its completions and the reference's log-probs."""
        self.seconds_to_reward.append(time.perf_counter() - self._last)
        self._lengths.append([int(length) for length in lengths])

    def step(self) -> None:
        """A step is over: the next one starts here."""
        last, last_cpu = self._last, self._last_cpu
        self.start()
        self.seconds.append(self._last - last)
        self.cpu_seconds.append(self._last_cpu - last_cpu)

    def record(self, warmups: int) -> dict[str, Any]:
        """Returns what was measured, by its names in the JSON."""
        lengths = self._lengths[warmups:]
        return {
            "warmup_seconds": self.seconds[:warmups],
            "seconds": self.seconds[warmups:],
            "cpu_seconds": self.cpu_seconds[warmups:],
            "seconds_to_reward": self.seconds_to_reward[warmups:],
            "completion_tokens": [sum(row) for row in lengths],
            "longest_completion": [max(row) for row in lengths],
            "completions": len(lengths[0]),
        }


def emit(
    args: argparse.Namespace, packages: Sequence[str], measured: dict[str, Any]
) -> None:
    """Prints a line of JSON, the last one on standard output; writes it to --out."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    record = {
        "program": pathlib.Path(sys.argv[0]).name,
        "arguments": {k: v for k, v in vars(args).items() if k not in _PATHS},
        "load_average_before": _LOAD_BEFORE,
        "versions": {"python": platform.python_version(), **versions},
        **measured,
    }
    line = json.dumps(record)
    print(line, flush=True)
    if args.out:
        pathlib.Path(args.out).write_text(line + "\n")


def main() -> None:
    """Writes the tokenizer's directory."""
    flags = argparse.ArgumentParser(description="Writes the tokenizer's directory.")
    flags.add_argument("--vocab_size", type=int, default=4096)
    flags.add_argument("--output", type=pathlib.Path, required=True)
    args = flags.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    tokenizer(args.vocab_size).save(str(args.output / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": word(PAD_ID),
        "eos_token": word(PAD_ID + 1),
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps(settings, indent=2)
    (args.output / "tokenizer_config.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
