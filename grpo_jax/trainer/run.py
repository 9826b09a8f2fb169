"""A model with its task: everything of a run that does not change while it runs."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Array, Key

from grpo_jax import choices
from grpo_jax.config import TrainConfig
from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.environments import evidence
from grpo_jax.environments.base import Environment, Notice
from grpo_jax.environments.load import open_environment
from grpo_jax.policy import sharding, transformer
from grpo_jax.policy.devices import Device
from grpo_jax.records import TrainBatch
from grpo_jax.reporting import terminal
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import RewardFunction, Turn
from grpo_jax.rewards.builtin import builtin_rewards
from grpo_jax.rewards.tags import BOX, answer_opening, tag_set
from grpo_jax.rollout import groups, stops
from grpo_jax.rollout.episodes import Conversation, Speech
from grpo_jax.rollout.probing import Probing
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.rollout.session import Session
from grpo_jax.rollout.setup import Setup
from grpo_jax.rollout.stops import StopTable
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.load import load_task
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import expert_rows, planning
from grpo_jax.trainer.expert_rows import ExpertRows
from grpo_jax.trainer.model import Model, build_model, read_architecture
from grpo_jax.trainer.planning import Plan
from grpo_jax.trainer.scorer import Scorer


class Written(NamedTuple):
    """What was written in a session.

    Attributes:
      rows: their numbers.
      turns: of each row; none without an environment.
      conversation: with the environment, to go on from; None without one.
    """

    rows: list[int]
    turns: list[tuple[Turn, ...]]
    conversation: Conversation | None


@dataclasses.dataclass(frozen=True)
class Run:
    """What a configuration names, built and checked.

    Attributes:
      config: sealed.
      model: the policy's shape, tokenizer and starting weights.
      task: questions and rewards.
      rewards: the configured ones, with their weights.
      environment: what completions ask while they are written; None for nothing.
    """

    config: TrainConfig
    model: Model
    task: Task
    rewards: dict[str, tuple[float, RewardFunction]]
    environment: Environment | None = None

    def session(
        self,
        setup: Setup,
        view: transformer.Params,
        *,
        sampling: Sampling,
        key: Key[Array, ""],
        step: int,
    ) -> Session:
        """Returns a session in which `write` can write; see `Session`."""
        table = self._speech_and_stops[1] if self.environment else None
        return Session(setup, view, sampling=sampling, key=key, step=step, stops=table)

    def write(
        self,
        session: Session,
        prompts: Sequence[EncodedPrompt],
        samples: int,
        max_tokens: int = 0,
        max_calls: int | None = None,
        *,
        probe: bool = False,
    ) -> Written:
        """Completes prompts, in episodes if there is an environment.

        Args:
          session: of this run.
          prompts: what to complete.
          samples: completions of each, which are adjacent.
          max_tokens: longest completion; 0 is the session's.
          max_calls: of an episode; None is the configuration's.
          probe: ask episodes what they would answer, if that is configured.
        """
        requests = groups.group_requests(prompts, samples, max_tokens)
        if self.environment is None:
            rows = session.submit(requests)
            session.run()
            return Written(rows, [], None)
        speech, _ = self._speech_and_stops
        config = self.config.episode
        if max_calls is not None:
            config = dataclasses.replace(config, max_calls=max_calls)
        probing = self._probing if probe else None
        conversation = Conversation(session, self.environment, speech, config, probing)
        rows = conversation.begin(
            requests, [prompt.example for prompt in prompts for _ in range(samples)]
        )
        conversation.run()
        return Written(rows, list(map(conversation.turns, rows)), conversation)

    @functools.cached_property
    def _speech_and_stops(self) -> tuple[Speech, StopTable]:
        assert self.environment, "only episodes speak"
        pieces = self.model.tokenizer.token_bytes(self.model.arch.vocab_size)
        speech = Speech(self.model.tokenizer.encode, pieces)
        return speech, stops.build(pieces, self.environment.stops)

    @functools.cached_property
    def expert_rows(self) -> ExpertRows:
        """What the experts of the task did, as this run has it."""
        return ExpertRows(
            self.config, self.model.tokenizer, self.task, self.environment
        )

    @functools.cached_property
    def _probing(self) -> Probing | None:
        budget, tags = self.config.budget, tag_set(self.config.task.tags)
        if not budget.probe_tokens:
            return None
        return Probing(
            opening=self.model.tokenizer.encode(answer_opening(tags)),
            closing=tags.answer.close.encode(),
            nested=b"{" if tags.answer == BOX else b"",
            most=budget.probe_tokens,
            confidence=budget.exit_confidence,
        )

    def scorer(self) -> Scorer:
        """Returns what computes log-probs of rollouts."""
        config = self.config
        return Scorer(
            arch=self.model.arch,
            mesh=self.model.mesh,
            dtype=config.policy.dtype,
            remat=config.policy.remat,
            attention=config.policy.attention,
            temperature=config.objective.temperature
            or config.rollout.sampling.temperature,
            completion_columns=config.rollout.max_completion_tokens,
            chunk_tokens=config.trainer.logits_chunk_tokens,
        )

    def micro_batches(
        self, batch: TrainBatch, *, widest: int, budget_tokens: int
    ) -> list[TrainBatch]:
        """Cuts a batch for this run's devices; the parts are still on the host.

        Args:
          batch: the rows of one update.
          widest: columns that the longest possible row would need.
          budget_tokens: as configured; 0 is chosen here.
        """
        return batches.micro_batches(
            batch,
            widest=widest,
            budget_tokens=budget_tokens or self.model.plan.micro_batch_tokens,
            row_shards=self.scorer().row_shards,
        )

    def close(self) -> None:
        """Ends the processes of the task's rewards, and the environment."""
        self.task.close()
        if self.environment:
            self.environment.close()


def plan(config: TrainConfig, named: tuple[Device, int] | None = None) -> Plan:
    """Returns what a run would take; neither weights nor data are read.

    Args:
      config: sealed.
      named: a device and how many of it; None is what this process has.

    Raises:
      ValueError: a mesh or a model that cannot be.
    """
    axes = config.mesh.data, config.mesh.fsdp, config.mesh.tensor
    device, count = named or (None, 0)
    mesh = sharding.abstract_mesh(*axes, count) if count else sharding.make_mesh(*axes)
    _check_rows(config, mesh)
    arch = read_architecture(config)
    sharding.check_mesh(arch, mesh)
    return planning.plan_on(config, arch, mesh, device)


def build(config: TrainConfig) -> Run:
    """Builds what a sealed configuration names, cheapest checks first.

    Raises:
      ValueError: a mesh, model, task or reward that cannot be.
      FileNotFoundError: a path that does not exist.
    """
    model = build_model(config)
    _check_rows(config, model.mesh)
    task = load_task(config.task, config.reward)
    if config.experts.below:
        task = _with_experts(config, model, task)
    if config.expansion.continuations and not any(
        example.columns.get("evidence") for example in task.train
    ):
        raise ValueError(
            f"config.expansion.continuations is {config.expansion.continuations} and "
            f"task {task.name!r} knows the gold documents of no question, from which "
            "groups would go on: set config.expansion.continuations=0"
        )
    rewards = _weighted_rewards(config, task)
    environment = open_environment(config, task, model.mesh)
    if environment:
        _check_room(config, environment, model.tokenizer)
    task, warning = evidence.find(task, environment, config.retrieval)
    if warning:
        terminal.say(warning)
    return Run(config, model, task, rewards, environment)


def _check_room(
    config: TrainConfig, environment: Environment, tokenizer: Tokenizer
) -> None:
    """A reply must be able to say more than that it is over."""
    closing = len(tokenizer.encode(environment.notice(Notice.LAST).closing))
    episode, longest = config.episode, config.rollout.max_completion_tokens
    if 0 < episode.reply_tokens <= closing:
        raise ValueError(
            f"config.episode.reply_tokens is {episode.reply_tokens} and the end of a "
            f"reply alone takes {closing}: raise it, or set it to 0"
        )
    # A query has a token at least, and its closing tag another.
    if longest - episode.answer_tokens - 2 <= closing:
        raise ValueError(
            f"config.rollout.max_completion_tokens is {longest}, of which "
            f"config.episode.answer_tokens leaves {longest - episode.answer_tokens}: "
            f"no reply fits, of which the end alone takes {closing}; raise the first "
            "or lower the second"
        )


def _with_experts(config: TrainConfig, model: Model, task: Task) -> Task:
    """Returns a task that knows as many experts as it may; there must be one."""
    if not task.experts:
        raise ValueError(
            f"config.experts.below is {config.experts.below} and task {task.name!r} "
            "knows no expert: set config.task.experts_path, or config.experts.below=0"
        )
    if config.experts.replay and not config.episode.environment:
        raise ValueError(
            "config.experts.replay is True and config.episode.environment is '': "
            "nothing replies to their queries; set it to 'search', or the first to "
            "False"
        )
    most = config.experts.most or len(task.experts)
    ids = [example.id for example in task.train if example.id in task.experts][:most]
    task = dataclasses.replace(task, experts={id: task.experts[id] for id in ids})
    if config.experts.loss is choices.ExpertLoss.IMPORTANCE:
        expert_rows.check_log_probs(config, model.tokenizer, task)
    return task


def _check_rows(config: TrainConfig, mesh: sharding.AnyMesh) -> None:
    """Every batch of the rollout must split evenly over the devices."""
    split = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = config.rollout.prompts_per_step * config.rollout.group_size
    for name, count in (
        ("config.rollout.prompts_per_step x group_size", rows),
        ("config.rollout.max_rows", config.rollout.max_rows),
    ):
        if count % split:
            raise ValueError(
                f"{name} is {count}: config.mesh.data x config.mesh.fsdp, {split}, "
                "must divide it"
            )


def _weighted_rewards(
    config: TrainConfig, task: Task
) -> dict[str, tuple[float, RewardFunction]]:
    """Finds the configured rewards: of the task, built in, or by import path."""
    limit, end = config.rollout.max_completion_tokens, config.reward.cosine.max_tokens
    if "cosine" in config.reward.weights and end not in (0, limit):
        terminal.say(
            f"warning: config.reward.cosine.max_tokens is {end}, but completions have "
            f"up to {limit} tokens (config.rollout.max_completion_tokens)"
        )
    builtin = builtin_rewards(task.rewards["accuracy"], config.reward, limit)
    known = {**builtin, **task.rewards}
    return {
        name: (weight, scoring.load_reward(name, known))
        for name, weight in config.reward.weights.items()
    }
