"""The configured model: its shape, tokenizer, weights and sampler, on its mesh."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from grpo_jax.config import TrainConfig
from grpo_jax.data.pipeline import EncodedPrompt, encode_prompts
from grpo_jax.data.tokenizer import Tokenizer, load_tokenizer
from grpo_jax.policy import (
    attention_kernels,
    compilation,
    hub,
    huggingface,
    model_config,
    presets,
    sharding,
    transformer,
)
from grpo_jax.policy.presets import Architecture
from grpo_jax.rewards.tags import system_prompt
from grpo_jax.rollout.setup import Setup
from grpo_jax.tasks.base import Example
from grpo_jax.trainer import planning
from grpo_jax.trainer.planning import Plan

# Streams of randomness: one constant each, folded into the key of the seed.
INIT, ROLLOUT, EVALUATION, GENERATE, LADDER = range(5)


@dataclasses.dataclass(frozen=True)
class Model:
    """What `config.policy` names, built and checked; weights are made when asked for.

    Attributes:
      config: sealed.
      mesh: the devices.
      arch: the shape of the model.
      source: directory of the given weights; None if they are random.
      tokenizer: of the model.
      plan: what a run takes on these devices, and the sizes that were chosen for it.
    """

    config: TrainConfig
    mesh: Mesh
    arch: Architecture
    source: pathlib.Path | None
    tokenizer: Tokenizer
    plan: Plan

    def key(self, stream: int) -> jax.Array:
        """Returns the key of a stream of randomness."""
        return jax.random.fold_in(jax.random.key(self.config.seed), stream)

    @functools.cached_property
    def prompt_options(self) -> dict[str, Any]:
        """How examples become prompts; training and evaluation agree."""
        task = self.config.task
        return {
            "max_prompt_tokens": self.config.rollout.max_prompt_tokens,
            "overlong": task.overlong,
            "system_prompt": system_prompt(task),
            "template": task.prompt_template,
            "use_chat_template": task.use_chat_template,
        }

    def encode(self, examples: Sequence[Example]) -> list[EncodedPrompt]:
        """Returns the prompts of examples."""
        return encode_prompts(examples, self.tokenizer, **self.prompt_options)

    def rollout_setup(self, max_completion_tokens: int = 0) -> Setup:
        """Returns the sampler; 0 takes the completion limit of training."""
        rollout = self.config.rollout
        rows = rollout.prompts_per_step * rollout.group_size
        longest = max_completion_tokens or rollout.max_completion_tokens
        _check_context(self.config, self.arch, longest)
        return Setup(
            arch=self.arch,
            mesh=self.mesh,
            dtype=self.config.policy.dtype,
            attention=self.config.policy.attention,
            eos_ids=self.tokenizer.eos_ids,
            max_prompt_tokens=rollout.max_prompt_tokens,
            max_completion_tokens=longest,
            max_rows=min(self.plan.rows, rows),
            chunk_steps=rollout.chunk_steps,
        )

    def abstract_params(self) -> Any:
        """Returns shapes, dtypes and shardings of the master weights."""
        abstract = transformer.abstract_params(self.arch)
        shardings = sharding.param_shardings(self.mesh, abstract)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            abstract,
            shardings,
        )

    def initial_params(self) -> transformer.Params:
        """Returns the starting weights, float32, each in its place on the mesh."""
        shardings = jax.tree.map(lambda x: x.sharding, self.abstract_params())
        if self.source:
            return huggingface.load_params(self.source, self.arch, shardings=shardings)
        init = jax.jit(transformer.init, static_argnums=0, out_shardings=shardings)
        return init(self.arch, self.key(INIT))

    @functools.cached_property
    def rollout_view(self) -> Any:
        """The jitted function from master weights to those the sampler reads."""
        view = functools.partial(
            transformer.rollout_view, arch=self.arch, dtype=self.config.policy.dtype
        )
        # One layer of a stacked weight keeps the stack's rule, less its first axis.
        stacked = sharding.param_shardings(
            self.mesh, transformer.abstract_params(self.arch), axes=("tensor",)
        )
        return jax.jit(view, out_shardings=sharding.unstack(stacked, self.arch))


def build_model(config: TrainConfig) -> Model:
    """Builds what `config.mesh` and `config.policy` name, cheapest checks first.

    Raises:
      ValueError: a mesh or a model that cannot be.
      FileNotFoundError: a path that does not exist.
    """
    compilation.use_persistent_cache()
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    policy, rollout = config.policy, config.rollout
    source = hub.resolve(policy.path) if policy.path else None
    tokenizer = load_tokenizer(policy.tokenizer or str(source))
    if source:
        arch = model_config.read_architecture(source)
    else:
        arch = presets.preset(policy.preset, tokenizer.vocab_size)
    if tokenizer.vocab_size > arch.vocab_size:
        raise ValueError(
            f"the tokenizer {tokenizer.name} has {tokenizer.vocab_size} tokens and the "
            f"model {policy.path} only {arch.vocab_size} embeddings: set "
            "config.policy.tokenizer to the one the model was trained with"
        )
    sharding.check_mesh(arch, mesh)
    attention_kernels.resolve(  # raises now what would only be found while tracing
        policy.attention,
        attention_kernels.this_hardware(),
        dtype=policy.dtype.value,
        head_dim=arch.head_dim,
    )
    _check_context(config, arch, rollout.max_completion_tokens)
    # Now, while the memory is still free.
    plan = planning.plan_on(config, arch, mesh)
    return Model(config, mesh, arch, source, tokenizer, plan)


def read_architecture(config: TrainConfig) -> Architecture:
    """Returns the shape of the configured model; its weights are not even fetched.

    Raises:
      ValueError: a model that cannot be, or completions that exceed its context.
    """
    policy = config.policy
    if policy.path:
        source = hub.resolve(policy.path, weights=False)
        arch = model_config.read_architecture(source)
    else:
        vocabulary = load_tokenizer(policy.tokenizer).vocab_size
        arch = presets.preset(policy.preset, vocabulary)
    _check_context(config, arch, config.rollout.max_completion_tokens)
    return arch


def _check_context(config: TrainConfig, arch: Architecture, completion: int) -> None:
    """Prompts and completions, and those of evaluations, must fit the context."""
    prompt = config.rollout.max_prompt_tokens
    completion = max(completion, config.evaluation.max_completion_tokens)
    if prompt + completion > arch.max_context_tokens:
        raise ValueError(
            f"config.rollout.max_prompt_tokens ({prompt}) plus the longest completion "
            f"({completion}) exceed the model's context of {arch.max_context_tokens} "
            "tokens: lower it, or max_completion_tokens of config.rollout and "
            "config.evaluation (of generate: --max_tokens)"
        )
