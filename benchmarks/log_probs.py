"""Log-probs in chunks of the logits, against all the logits at once.

    python -m benchmarks.log_probs
    python -m benchmarks.log_probs --vocabulary=32000 --width=512 --chunk_tokens=256

Both compute the log-prob of every target and the gradient of their weighted sum with
respect to the hidden states and the head. "full" is `jax.nn.log_softmax` of
`hidden @ head.T`; "chunked" is `grpo_jax.objective.log_probs`, which computes the
entropies as well. They take turns in one process.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from benchmarks import common
from grpo_jax.objective.log_probs import token_log_probs

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def full(
    hidden: Float[Array, "B C D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B C"],
    temperature: float,
) -> Float[Array, "B C"]:
    """Computes log-probs as the formula says, from all the logits."""
    logits_BCV = jnp.einsum(
        "bcd,vd->bcv", hidden, head, preferred_element_type=jnp.float32
    )
    log_p_BCV = jax.nn.log_softmax(logits_BCV / temperature)
    return jnp.take_along_axis(log_p_BCV, targets[..., None], axis=-1)[..., 0]


def gradient_of(score: Callable[..., Array], targets: Array, credit: Array):
    """Returns the function (hidden, head) -> log-probs and both gradients."""

    def loss(hidden: Array, head: Array) -> tuple[Array, Array]:
        log_probs = score(hidden, head, targets)
        return (credit * log_probs).sum(), log_probs

    return jax.grad(loss, argnums=(0, 1), has_aux=True)


def main() -> None:
    """Measures both and prints a table and one JSON."""
    flags = common.parser(__doc__)
    flags.add_argument("--vocabulary", type=int, default=151_936)
    flags.add_argument("--width", type=int, default=256, help="of the model")
    flags.add_argument("--rows", type=int, default=8)
    flags.add_argument("--tokens", type=int, default=1024, help="of all rows together")
    flags.add_argument("--chunk_tokens", type=int, default=128)
    flags.add_argument("--temperature", type=float, default=1.0)
    flags.add_argument("--dtype", choices=DTYPES, default="float32")
    args = flags.parse_args()

    rng, dtype = np.random.default_rng(0), DTYPES[args.dtype]
    rows, columns = args.rows, args.tokens // args.rows
    hidden = jnp.asarray(rng.normal(size=(rows, columns, args.width)), dtype)
    head = jnp.asarray(0.05 * rng.normal(size=(args.vocabulary, args.width)), dtype)
    targets = jnp.asarray(rng.integers(0, args.vocabulary, (rows, columns)), jnp.int32)
    credit = jnp.asarray(rng.normal(size=(rows, columns)), jnp.float32)

    def chunked(hidden: Array, head: Array, targets: Array) -> Array:
        chunk_columns = max(1, args.chunk_tokens // rows)
        return token_log_probs(
            hidden,
            head,
            targets,
            temperature=args.temperature,
            chunk_columns=chunk_columns,
        )[0]

    scores = {
        "full": functools.partial(full, temperature=args.temperature),
        "chunked": chunked,
    }
    functions = {
        name: gradient_of(score, targets, credit) for name, score in scores.items()
    }
    compiled = {
        name: jax.jit(function).lower(hidden, head).compile()
        for name, function in functions.items()
    }
    memory = {
        name: common.temporary_bytes(function, hidden, head)
        for name, function in functions.items()
    }
    expected, actual = (compiled[name](hidden, head) for name in ("full", "chunked"))
    difference = jax.tree.map(
        lambda x, y: float(jnp.abs(x - y).max() / jnp.abs(x).max()), expected, actual
    )
    del expected, actual
    seconds = common.measure(
        args.repeats,
        **{
            name: functools.partial(program, hidden, head)
            for name, program in compiled.items()
        },
    )
    print(f"{'':10}{'temporary MB':>14}  seconds: median (least to most)")
    for name, values in seconds.items():
        print(f"{name:10}{memory[name] / 1e6:14.0f}  {common.spread(values)}")
    result = {
        "seconds": seconds,
        "temporary_bytes": memory,
        "memory_ratio": memory["full"] / memory["chunked"],
        "speedup": common.median(seconds["full"]) / common.median(seconds["chunked"]),
        "relative_difference": jax.tree.leaves(difference),
    }
    common.write(args.results, "log_probs", result)


if __name__ == "__main__":
    main()
