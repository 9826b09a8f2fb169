"""Guided groups: what they start from, how they are rolled out, and what they teach.

The traces are the worked solutions of the task. How much of them is given moves with
the reward of the completions that get nothing (`objective/guidance_length.py`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from grpo_jax import choices
from grpo_jax.config import GuidanceConfig, TrainConfig
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.objective import guidance
from grpo_jax.objective import guidance_length as lengths
from grpo_jax.records import Trajectories
from grpo_jax.rewards import scoring
from grpo_jax.rewards.scoring import RewardTable
from grpo_jax.rollout import groups
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.texts import Request
from grpo_jax.trainer import stepmetrics
from grpo_jax.trainer.run import Run

_THINK = "<think>"
_FIXED = (choices.GuidanceLength.FIXED,)


class Trace(NamedTuple):
    """A worked solution, as far as it may be given.

    Attributes:
      tokens: ids, at most as many as can ever be given.
      limit: most of them that may be given.
      length: of the whole trace.
    """

    tokens: list[int]
    limit: int
    length: int


class Given(NamedTuple):
    """What the rows of a step start from.

    Attributes:
      length: tokens that the rule allows.
      prefixes: token ids, 0 past `counts`.
      counts: tokens given to each row; 0 where a row is not guided.
      traces: one a prompt.
    """

    length: int
    prefixes: Int[np.ndarray, "B W"]
    counts: Int[np.ndarray, " B"]
    traces: list[Trace]


class Guide:
    """Gives some rows of every group the beginning of a trace.

    Attributes:
      chosen: which rows of a group are to be guided.
      most_tokens: that are ever given.
      state: of the length rule.
    """

    def __init__(
        self, config: TrainConfig, tokenizer: Tokenizer, vocab_size: int
    ) -> None:
        """Prepares the rule; `vocab_size` is the model's.

        Raises:
          ValueError: a length rule that cannot be, or that could not see any reward.
        """
        self._config = config
        self._tokenizer = tokenizer
        self.chosen = np.asarray(
            guidance.guided_rows(1, config.rollout.group_size, config.guidance.fraction)
        )
        self._rule = _rule(config.guidance, config.trainer.steps)
        if self.chosen.all() and self._sees_unguided_only:
            raise ValueError(
                f"config.guidance.fraction is {config.guidance.fraction}: no row of a "
                f"group of {config.rollout.group_size} is left unguided, and "
                f"config.guidance.length={self._rule.kind.value} follows the reward of "
                "unguided rows; lower the fraction or set "
                "config.guidance.signal_rows=all"
            )
        self.state = lengths.start(self._rule)
        self._pass_rates: dict[int, float] = {}
        self._pieces = tokenizer.token_bytes(vocab_size)
        # Tags that are single tokens leave no bytes, so their ids are forbidden.
        tags = (tokenizer.encode(mark) for mark in guidance.ANSWER_MARKS)
        self._stops = {*tokenizer.eos_ids, *(tag[0] for tag in tags if len(tag) == 1)}
        most = max(self._rule.initial, self._rule.maximum, self._rule.final)
        self.most_tokens = min(most, config.rollout.max_completion_tokens - 1)

    @property
    def _sees_unguided_only(self) -> bool:
        schedule = self._rule.kind in (*_FIXED, *lengths.SCHEDULES)
        follows = self._config.guidance.per_prompt or not schedule
        unguided = self._config.guidance.signal_rows is choices.SignalRows.UNGUIDED
        return follows and unguided

    def give(self, prompts: Sequence[EncodedPrompt], step: int, limit: int) -> Given:
        """Returns what the groups of some prompts start from.

        Args:
          prompts: of the groups.
          step: from 1.
          limit: tokens of a completion.
        """
        traces = [self.trace(prompt, limit) for prompt in prompts]
        padded = np.zeros((len(traces), self.most_tokens), np.int32)
        for row, trace in zip(padded, traces, strict=True):
            row[: len(trace.tokens)] = trace.tokens
        length = guidance.anneal(
            self.state.length,
            step - 1,
            total_steps=self._config.trainer.steps,
            fraction=self._config.guidance.anneal_fraction,
        )
        given = length[None]
        if self._config.guidance.per_prompt:
            ids = [prompt.example.id for prompt in prompts]
            rates = [self._pass_rates.get(index, math.nan) for index in ids]
            given = guidance.per_prompt(length, jnp.asarray(rates, jnp.float32))
        prefixes, counts = guidance.splice(
            jnp.asarray(padded),
            jnp.asarray([trace.limit for trace in traces], jnp.int32),
            given,
            jnp.asarray(np.tile(self.chosen, len(prompts))),
        )
        return Given(int(length), np.asarray(prefixes), np.array(counts), traces)

    def observe(
        self,
        prompts: Sequence[EncodedPrompt],
        given: Given,
        rewards: RewardTable,
        trajectories: Trajectories,
    ) -> dict[str, float]:
        """Takes in the rewards of a step and returns its metrics.

        Args:
          prompts: of the step.
          given: what its rows started from.
          rewards: of its rows.
          trajectories: the rows.
        """
        config = self._config.guidance
        values = rewards.values[:, rewards.names.index(config.signal_reward)]
        chosen = np.tile(self.chosen, len(prompts))
        signal = guidance.signal(
            jnp.asarray(values, jnp.float32),
            jnp.asarray(chosen),
            scope=config.signal_rows,
        )
        before = int(self.state.length)
        self.state = lengths.advance(self._rule, self.state, signal)
        after = int(self.state.length)
        alone = np.where(chosen, np.nan, values).reshape(len(prompts), -1)
        for prompt, group in zip(prompts, alone, strict=True):
            if not np.isnan(group).all():
                self._pass_rates[prompt.example.id] = float(np.nanmean(group))
        at_bound = after in (self._rule.minimum, self._rule.maximum)
        adaptive = self._rule.kind not in (*_FIXED, *lengths.SCHEDULES)
        written = trajectories.lengths - trajectories.prompt_lengths
        seen = stepmetrics.guidance_metrics(
            given.counts,
            signal=values,
            totals=rewards.totals,
            generated=written - given.counts,
            trace_lengths=np.array([trace.length for trace in given.traces]),
            limits=np.array([trace.limit for trace in given.traces]),
            length=given.length,
        )
        return seen | {
            "guidance/length": given.length,
            "guidance/signal": float(signal),
            "guidance/length_ratio": after / max(before, 1),
            "guidance/at_bound": float(adaptive and at_bound),
        }

    def get_state(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold; JSON can."""
        rates = {str(index): rate for index, rate in self._pass_rates.items()}
        return {"length": lengths.to_numbers(self.state), "pass_rates": rates}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on as the guide that returned `state`."""
        self.state = lengths.from_numbers(state["length"])
        self._pass_rates = {int(k): rate for k, rate in state["pass_rates"].items()}

    def trace(self, prompt: EncodedPrompt, limit: int) -> Trace:
        """Returns the trace of a prompt; without tokens where it has none.

        `limit` is the longest completion: a trace leaves room for what follows it.
        """
        text = _trace_text(prompt, self._config.guidance.open_thinking)
        tokens = self._tokenizer.encode(text) if text else []
        most = guidance.trace_limit(
            tokens,
            fraction=self._config.guidance.max_trace_fraction,
            room=limit,
            stops=self._stops,
            boundary=guidance.reasoning_tokens([self._pieces[id] for id in tokens]),
        )
        return Trace(tokens[: self.most_tokens], most, len(tokens))


def roll_out(
    run: Run,
    guide: Guide,
    session: Session,
    prompts: Sequence[EncodedPrompt],
    step: int,
    limit: int,
) -> tuple[Trajectories, Given]:
    """Returns a group of completions for every prompt, some of which are guided.

    Args:
      run: what the configuration built.
      guide: says what is given.
      session: without rows; decodes them.
      prompts: of the step.
      step: from 1.
      limit: tokens of a completion, those that are given included.
    """
    given = guide.give(prompts, step, limit)
    group_size = run.config.rollout.group_size
    requests = groups.group_requests(prompts, group_size)
    chosen = np.tile(guide.chosen, len(prompts))
    rows = np.zeros(len(requests), np.int64)

    def submit(which: Bool[np.ndarray, " B"]) -> None:
        places = np.flatnonzero(which)
        asked = [
            Request(
                requests[place].prompt,
                requests[place].prompt_id,
                requests[place].sample,
                prefix=given.prefixes[place, : given.counts[place]].tolist(),
                max_tokens=limit,
            )
            for place in places
        ]
        rows[places] = session.submit(asked)
        session.run()

    if not run.config.guidance.only_failing:
        submit(np.ones(len(rows), bool))
    else:
        submit(~chosen)
        alone = session.trajectories(rows[~chosen].tolist())
        failing = signals(run, alone, prompts, limit)
        failing = np.max(np.nan_to_num(failing), axis=1) <= 0
        given.counts[~np.repeat(failing, group_size)] = 0
        submit(chosen)
    return session.trajectories(rows.tolist()), given


def join(parts: Sequence[Given]) -> Given:
    """Returns what the rows of several parts of a step start from."""
    return Given(
        parts[0].length,
        np.concatenate([part.prefixes for part in parts]),
        np.concatenate([part.counts for part in parts]),
        [trace for part in parts for trace in part.traces],
    )


def signals(
    run: Run,
    trajectories: Trajectories,
    prompts: Sequence[EncodedPrompt],
    max_tokens: int,
) -> Float[np.ndarray, "N G"]:
    """Returns the reward that guidance follows, of the rows of every prompt.

    NaN where a row has none. `max_tokens` is the limit that rows were written under.
    """
    name = run.config.guidance.signal_reward
    completions = groups.completions(
        trajectories, prompts, run.model.tokenizer, max_tokens
    )
    table = scoring.score(completions, {name: run.rewards[name]})
    return table.values[:, 0].reshape(len(prompts), -1)


def _trace_text(prompt: EncodedPrompt, open_thinking: bool) -> str:
    """Returns the trace as the policy would continue the prompt with it."""
    text = prompt.example.solution
    opened = prompt.text.rstrip().endswith(_THINK)
    if opened:
        return text.lstrip().removeprefix(_THINK).removeprefix("\n")
    if text and open_thinking and not text.lstrip().startswith(_THINK):
        return f"{_THINK}\n{text}"
    return text


def _rule(config: GuidanceConfig, steps: int) -> lengths.LengthRule:
    try:
        return lengths.LengthRule(
            kind=config.length,
            initial=config.initial,
            minimum=config.minimum,
            maximum=config.maximum,
            final=config.final,
            total_steps=steps,
            power=config.power,
            factor=config.factor,
            interval=config.interval,
            window=config.window,
            delta=config.delta,
            tie=config.tie,
            on_zero=config.on_zero,
            max_ratio=config.max_ratio,
            literal=config.literal,
        )
    except ValueError as error:
        raise ValueError(f"config.guidance.{error}") from error
