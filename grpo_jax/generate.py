"""Prints completions of prompts as they are written.

    python -m grpo_jax.generate --workdir=runs/quickstart --prompt="7-8+3-4?"
    cat questions.txt | python -m grpo_jax.generate --workdir=runs/gsm8k

A prompt goes through the run's prompt and chat template unless --raw. Without --prompt
and --file, each line of standard input is a prompt.
"""

import dataclasses
import sys
from collections.abc import Iterable

import jax
from absl import flags

from grpo_jax import doors
from grpo_jax.config import SamplingConfig
from grpo_jax.reporting.terminal import printable
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session, complete
from grpo_jax.rollout.texts import Request, Status
from grpo_jax.trainer import model as models
from grpo_jax.trainer import policies

_POLICY = doors.define_policy()
_PROMPT = flags.DEFINE_multi_string("prompt", [], "A prompt; may be repeated.")
_FILE = flags.DEFINE_string("file", "", "A file with one prompt a line.")
_RAW = flags.DEFINE_bool("raw", False, "Take prompts as they are, without templates.")
_SAMPLES = flags.DEFINE_integer(
    "samples", 1, "Completions of each prompt.", lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "0 is greedy.")
_TOP_P = flags.DEFINE_float("top_p", 1.0, "1 is off.")
_TOP_K = flags.DEFINE_integer("top_k", 0, "0 is off.")
_SEED = flags.DEFINE_integer("seed", 0, "Another one gives other completions.")
_MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens", 0, "Longest completion; 0 is as in training.", lower_bound=0
)

_BETWEEN = "-" * 8


def main(_: list[str]) -> None:
    """Completes each prompt in turn."""
    config, workdir, checkpoint = _POLICY.values()
    sampling = SamplingConfig(_TEMPERATURE.value, _TOP_K.value, _TOP_P.value).seal()
    model = models.build_model(config)
    with jax.set_mesh(model.mesh):
        params = policies.load_params(model, workdir, checkpoint)[0]
        view = model.rollout_view(params)
        rows = model.mesh.shape["data"] * model.mesh.shape["fsdp"]
        setup = model.rollout_setup(_MAX_TOKENS.value)
        setup = dataclasses.replace(setup, max_rows=rows, chunk_steps=8)
        for index, text in enumerate(_prompts()):
            tokens = _encode(model, text, index)
            for sample in range(_SAMPLES.value):
                if index or sample:
                    print(_BETWEEN)
                printer = _Printer(model)
                complete(
                    setup,
                    view,
                    [Request(tokens, index, sample)],
                    sampling=Sampling.of(sampling),
                    key=model.key(models.GENERATE),
                    step=_SEED.value,
                    on_chunk=printer.show,
                )
                print(flush=True)


class _Printer:
    """Prints what a row has grown by; an unfinished character waits for its rest."""

    def __init__(self, model: models.Model):
        self._decode, self._shown = model.tokenizer.decode, 0

    def show(self, session: Session) -> None:
        texts = session.texts
        span = slice(texts.prompt_lengths[0], texts.lengths[0])
        text = self._decode(texts.tokens[0, span].tolist())
        if texts.status[0] != Status.DONE:
            text = text.rstrip("�")
        print(printable(text[self._shown :]), end="", flush=True)
        self._shown = len(text)


def _prompts() -> Iterable[str]:
    if prompts := list(_PROMPT.value or ()):
        return prompts
    if _FILE.value:
        with open(_FILE.value, encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file if line.strip()]
    return (line.rstrip("\n") for line in sys.stdin if line.strip())


def _encode(model: models.Model, text: str, index: int) -> list[int]:
    task, longest = model.config.task, model.config.rollout.max_prompt_tokens
    if not _RAW.value:
        text = model.tokenizer.render(
            text,
            system_prompt=task.system_prompt,
            template=task.prompt_template,
            use_chat_template=task.use_chat_template,
        )
    tokens = model.tokenizer.encode(text)
    if not 0 < len(tokens) <= longest:
        raise ValueError(
            f"prompt {index + 1} has {len(tokens)} tokens and this run takes from 1 to "
            f"{longest} (config.rollout.max_prompt_tokens): {text[:80]!r}"
        )
    return tokens


if __name__ == "__main__":
    doors.run(main)
