"""Times whole GRPO steps of Tunix' own learner with its vanilla rollout.

    benchmarks/.peers/tunix/bin/python benchmarks/peers/tunix_step.py --model=DIR
    benchmarks/.peers/tunix/bin/python benchmarks/peers/tunix_step.py --model=DIR \
        --eos_ids=26 --max_new=512

A step is all of it: sampling, reward, the reference's log-probs, the loss, one update
of AdamW; from the end of one step to the end of the next. The weights are those of the
directory, read by Tunix' own loader into its own Qwen3. float32 on the CPU. Chosen in
the peer's favour:

- everything on one mesh of one device, where trainer and sampler share the weights;
- no rematerialisation, as everything fits;
- one update of all completions, its gradient summed over pieces of the completions of
  two prompts, which is a little faster than all at once and takes far less memory;
  `--micro_batch=8` is one piece;
- a cache of exactly the slots that are needed;
- `top_p=1` and no top-k, for which its sampler draws without sorting;
- two steps of warm-up, so that no compilation is in what is measured;
- no metrics backends and no checkpoints.

The end of a completion: its sampler stops when all rows have drawn one of
`RolloutConfig.eos_tokens`, and cuts each row before its first one, so that the end
itself is not trained. It is counted here all the same, as a drawn token. Tunix masks
by comparison with the padding token, so that a drawn token 0 is not trained either.
Its sampler would reuse the same noise at every call; here every step has a seed.

Tunix' Qwen3 ignores `rope_theta` and turns with 1e6: other models are refused.
"""

import argparse
import json
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
import optax
import protocol
import tokenizers
from tunix.models.qwen3 import model as qwen3
from tunix.models.qwen3 import params as qwen3_params
from tunix.rl import rl_cluster
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout
from tunix.sft import hooks


class _Tokenizer:
    """What Tunix asks of a tokenizer."""

    def __init__(self, words: tokenizers.Tokenizer, eos_id: int):
        self._words, self._eos_id = words, eos_id

    def encode(self, text: str) -> list[int]:
        return self._words.encode(text).ids

    def decode(self, ids: list[int]) -> str:
        return protocol.to_text(ids)

    def bos_id(self) -> None:
        return None

    def eos_id(self) -> int:
        return self._eos_id

    def pad_id(self) -> int:
        return protocol.PAD_ID


class _Clock(hooks.TrainingHooks):
    """Tells the stopwatch where steps end: the trainer leaves its loop at each."""

    def __init__(self, stopwatch: protocol.Stopwatch):
        self.stopwatch = stopwatch

    def on_train_start(self, train_ctx):
        pass

    def on_train_end(self, train_ctx):
        if train_ctx.train_steps > len(self.stopwatch.seconds):  # not at micro-batches
            self.stopwatch.step()

    def on_train_step_start(self, train_ctx):
        pass

    def on_train_step_end(self, train_ctx, train_step, train_loss, step_time):
        pass

    def on_eval_step_start(self, train_ctx):
        pass

    def on_eval_step_end(self, train_ctx, eval_loss):
        pass


def _model(directory: str, mesh: jax.sharding.Mesh) -> qwen3.Qwen3:
    config = json.loads((pathlib.Path(directory) / "config.json").read_text())
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    if config["model_type"] != "qwen3" or theta != 1e6:
        raise ValueError(f"{directory}: give a qwen3 model with rope_theta 1e6")
    sizes = qwen3.ModelConfig(
        num_layers=config["num_hidden_layers"],
        vocab_size=config["vocab_size"],
        embed_dim=config["hidden_size"],
        hidden_dim=config["intermediate_size"],
        num_heads=config["num_attention_heads"],
        head_dim=config["head_dim"],
        num_kv_heads=config["num_key_value_heads"],
        rope_theta=int(theta),
        norm_eps=config["rms_norm_eps"],
        use_tied_embedding=config["tie_word_embeddings"],
        remat_config=qwen3.RematConfig.NONE,
    )
    return qwen3_params.create_model_from_safe_tensors(
        directory, sizes, mesh, dtype=jax.numpy.float32
    )


def _learner(
    args: argparse.Namespace,
    rollout: base_rollout.RolloutConfig,
    stopwatch: protocol.Stopwatch,
) -> grpo_learner.GRPOLearner:
    axis_types = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=axis_types)
    vocab_size = protocol.vocab_size(args.model)
    ends = protocol.eos_ids(args.eos_ids, vocab_size)
    micro_batch = min(args.micro_batch, args.num_prompts)
    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.adamw(args.learning_rate, weight_decay=0.0),
        ),
        eval_every_n_steps=1_000_000,
        max_steps=args.warmups + args.repeats,
        mini_batch_size=args.num_prompts,
        train_micro_batch_size=micro_batch,
        rollout_micro_batch_size=args.num_prompts,
        compute_logps_micro_batch_size=micro_batch,
    )
    roles = rl_cluster.Role
    cluster = rl_cluster.RLCluster(
        actor=_model(args.model, mesh),
        reference=_model(args.model, mesh),
        tokenizer=_Tokenizer(protocol.tokenizer(vocab_size), ends[0]),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh={
                role: mesh for role in (roles.ACTOR, roles.REFERENCE, roles.ROLLOUT)
            },
            rollout_engine="vanilla",
            training_config=training,
            rollout_config=rollout,
        ),
    )
    cluster.actor_trainer.with_training_hooks(_Clock(stopwatch))

    def reward(prompts, completions, **kwargs):
        drawn = [len(text.split()) for text in completions]
        stopwatch.rewards([min(length + 1, args.max_new) for length in drawn])
        return [protocol.reward(text) for text in completions]

    return grpo_learner.GRPOLearner(
        rl_cluster=cluster,
        reward_fns=reward,
        algo_config=grpo_learner.GRPOConfig(
            num_generations=args.group_size, num_iterations=1, beta=args.kl_coef
        ),
    )


def _batches(
    args: argparse.Namespace, rollout: base_rollout.RolloutConfig
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the prompts of each step, and gives the sampler a seed for it."""
    steps = args.warmups + args.repeats
    rows = protocol.prompts(
        args.seed,
        steps * args.num_prompts,
        args.prompt_tokens,
        protocol.vocab_size(args.model),
    )
    for step in range(steps):
        rollout.seed = jax.random.key(step)
        batch = rows[step * args.num_prompts :][: args.num_prompts]
        yield {"prompts": np.array([protocol.to_text(prompt) for prompt in batch])}


def main() -> None:
    """Trains for a few steps."""
    flags = protocol.step_parser(__doc__)
    flags.add_argument("--micro_batch", type=int, default=2, help="prompts")
    flags.set_defaults(warmups=2)
    args = flags.parse_args()
    threads = protocol.limit_threads(args.threads)
    ends = protocol.eos_ids(args.eos_ids, protocol.vocab_size(args.model))
    rollout = base_rollout.RolloutConfig(
        max_tokens_to_generate=args.max_new,
        max_prompt_length=args.prompt_tokens,
        kv_cache_size=args.prompt_tokens + args.max_new,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
        eos_tokens=ends,
    )
    stopwatch = protocol.Stopwatch()
    learner = _learner(args, rollout, stopwatch)
    stopwatch.start()
    learner.train(_batches(args, rollout))
    measured = {"threads": threads, **stopwatch.record(args.warmups)}
    protocol.emit(args, ["google-tunix", "jax", "flax", "transformers"], measured)


if __name__ == "__main__":
    main()
