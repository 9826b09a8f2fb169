r"""Prints completions of prompts as they are written.

    python -m grpo_jax.generate --workdir=runs/quickstart --prompt="7-8+3-4?"
    cat questions.txt | python -m grpo_jax.generate --workdir=runs/gsm8k

A prompt goes through the run's prompt and chat template unless --raw. Without --prompt
and --file, each line of standard input is a prompt. Where the run has an environment,
a completion is an episode, shown turn by turn:

    python -m grpo_jax.generate --workdir=runs/agent --config=runs/agent/config.json \
        --config.retrieval.corpus_path=notes/ --prompt="Who built the inn?"
"""

import contextlib
import dataclasses
import sys
from collections.abc import Iterable

import jax
from absl import flags

from grpo_jax import doors
from grpo_jax.config import SamplingConfig, TrainConfig
from grpo_jax.data.examples import Example
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.environments.load import open_environment, searches_task
from grpo_jax.environments.narrated import Narrated
from grpo_jax.policy import transformer
from grpo_jax.reporting.terminal import printable
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session, complete
from grpo_jax.rollout.setup import Setup
from grpo_jax.rollout.texts import Request, Status
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.load import load_task
from grpo_jax.trainer import model as models
from grpo_jax.trainer import policies
from grpo_jax.trainer.run import Run

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
    with contextlib.closing(_open(config)) as run, jax.set_mesh(run.model.mesh):
        model = run.model
        params = policies.load_params(model, workdir, checkpoint)[0]
        view = model.rollout_view(params)
        rows = model.mesh.shape["data"] * model.mesh.shape["fsdp"]
        setup = model.rollout_setup(_MAX_TOKENS.value)
        setup = dataclasses.replace(setup, max_rows=rows, chunk_steps=8)
        write = _write_episode if run.environment else _write
        for index, text in enumerate(_prompts()):
            tokens = _encode(model, text, index)
            for sample in range(_SAMPLES.value):
                if index or sample:
                    print(_BETWEEN)
                request = Request(tokens, index, sample)
                write(run, setup, view, request, Sampling.of(sampling))


def _open(config: TrainConfig) -> Run:
    """Builds a run without questions: of its task, only documents may be needed."""
    model = models.build_model(config)
    task = Task(config.task.name, (), (), (), {})
    if searches_task(config):
        task = load_task(config.task, config.reward)
    environment = open_environment(config, task, model.mesh)
    if environment:
        environment = Narrated(environment, _tell)
    return Run(config, model, task, {}, environment)


def _write(
    run: Run,
    setup: Setup,
    view: transformer.Params,
    request: Request,
    sampling: Sampling,
) -> None:
    """Completes a prompt, printed as it is written."""
    complete(
        setup,
        view,
        [request],
        sampling=sampling,
        key=run.model.key(models.GENERATE),
        step=_SEED.value,
        on_chunk=_Printer(run.model).show,
    )
    print(flush=True)


def _write_episode(
    run: Run,
    setup: Setup,
    view: transformer.Params,
    request: Request,
    sampling: Sampling,
) -> None:
    """Completes a prompt in an episode, of which each turn is printed."""
    assert isinstance(run.environment, Narrated)
    # Within a rollout samples of a prompt differ by themselves; these are one each.
    key = jax.random.fold_in(run.model.key(models.GENERATE), request.sample)
    session = run.session(setup, view, sampling=sampling, key=key, step=_SEED.value)
    text = run.model.tokenizer.decode(request.prompt)
    prompt = EncodedPrompt(
        Example(request.prompt_id, text, ""), text, [*request.prompt]
    )
    exits = run.config.budget.exit_confidence > 0
    written = run.write(session, [prompt], 1, probe=exits)
    # The environment has told what it was asked, and not what ended the episode.
    for turn in written.turns[0][run.environment.asked :]:
        _tell(turn.text)
    if not session.trajectories(written.rows).finished[0]:
        _tell("(cut by a limit of tokens)")


def _tell(text: str) -> None:
    if text.strip():
        print(printable(text.strip()), flush=True)


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
    longest = model.config.rollout.max_prompt_tokens
    if not _RAW.value:
        options = model.prompt_options
        text = model.tokenizer.render(
            text,
            system_prompt=options["system_prompt"],
            template=options["template"],
            use_chat_template=options["use_chat_template"],
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
