"""The guidance ladder: how often a policy is right after more and more of a trace.

Climbed once, before the first step. It tests what guidance rests on: a policy that is
given more of a trace that fits the prompt, token for token, is right more often. It
also shows where the guidance length should begin: where some completions are right.
"""

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.policy import transformer
from grpo_jax.reporting import terminal
from grpo_jax.rollout import session
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.texts import Request
from grpo_jax.trainer import guidance, logbook, statistics
from grpo_jax.trainer.guidance import Guide
from grpo_jax.trainer.model import LADDER
from grpo_jax.trainer.run import Run

_RUNGS = 7


def climb(
    run: Run,
    guide: Guide,
    view: transformer.Params,
    prompts: Sequence[EncodedPrompt],
    workdir: pathlib.Path,
) -> None:
    """Measures the ladder, writes WORKDIR/guidance_ladder.json and says what it shows.

    Args:
      run: what the configuration built.
      guide: has the traces.
      view: weights for decoding.
      prompts: of the training split; the first `config.guidance.ladder_prompts` that
        have a trace are used.
      workdir: of the run.
    """
    count = run.config.guidance.ladder_prompts
    with_traces = (prompt for prompt in prompts if prompt.example.solution)
    chosen = list(itertools.islice(with_traces, count))
    if not chosen:
        return
    ladder = measure(run, guide, view, chosen)
    logbook.write_json(workdir / "guidance_ladder.json", ladder)
    _say(ladder)


def measure(
    run: Run,
    guide: Guide,
    view: transformer.Params,
    prompts: Sequence[EncodedPrompt],
) -> dict[str, Any]:
    """Returns the mean signal reward of one completion a prompt, for each rung.

    Args:
      run: what the configuration built.
      guide: has the traces.
      view: weights for decoding.
      prompts: N prompts with a trace.

    Returns:
      `signal`, the reward's name; `prompts`, N; and `rungs`, with the guidance `length`
      in tokens, what was given of it on average, and the mean with its interval.
    """
    lengths = np.unique(np.linspace(0, guide.most_tokens, _RUNGS).astype(int))
    requests, given = [], []
    longest = run.config.rollout.max_completion_tokens
    for prompt in prompts:
        trace = guide.trace(prompt, longest)
        for rung, length in enumerate(lengths):
            prefix = trace.tokens[: min(length, trace.limit)]
            request = Request(prompt.tokens, prompt.example.id, rung, prefix=prefix)
            requests.append(request)
            given.append(len(prefix))
    trajectories, _ = session.complete(
        run.model.rollout_setup(),
        view,
        requests,
        sampling=Sampling.of(run.config.rollout.sampling),
        key=run.model.key(LADDER),
    )
    values = guidance.signals(run, trajectories, prompts, longest)
    given_tokens = np.reshape(given, values.shape).mean(axis=0)
    return {
        "signal": run.config.guidance.signal_reward,
        "prompts": len(prompts),
        "rungs": [
            {
                "length": int(length),
                "given_tokens_mean": float(tokens),
                **statistics.mean_with_interval(
                    column, run.config.evaluation.confidence
                ),
            }
            for length, tokens, column in zip(
                lengths, given_tokens, values.T, strict=True
            )
        ],
    }


def _say(ladder: dict[str, Any]) -> None:
    rungs = ladder["rungs"]
    steps = ", ".join(f"{each['length']}: {each['mean']:.3g}" for each in rungs)
    terminal.say(
        f"guidance ladder, {ladder['signal']} of {ladder['prompts']} prompts after so "
        f"many tokens of their traces: {steps}"
    )
    # Compared this way, rungs that were never graded (NaN) are no reason to warn.
    if rungs[-1]["high"] < rungs[0]["low"]:
        terminal.say(
            "warning: guidance makes completions worse; look whether the traces begin "
            "as a completion of these prompts does"
        )
    elif max(each["mean"] for each in rungs) <= 0:
        terminal.say(
            "warning: no completion is right after any guidance, so no group can learn "
            "from it; raise config.guidance.maximum or max_trace_fraction, or look "
            "whether max_completion_tokens leaves room to finish"
        )
