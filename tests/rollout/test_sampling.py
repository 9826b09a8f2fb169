import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import config
from grpo_jax.rollout import sampling
from grpo_jax.rollout.sampling import Sampling

pytestmark = pytest.mark.system

# The largest number that `jax.random.uniform` returns, and the largest there is.
UNIFORM_TOP, TOP = np.float32(1 - 2**-23), np.nextafter(np.float32(1), np.float32(0))


def keys_of(count, seed=0, backwards=False):
    numbers = jnp.arange(count)[:: -1 if backwards else 1]
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)


def softmax(logits):
    masses = np.exp(logits - logits.max())
    return masses / masses.sum()


def spread(vocab, seed=0):
    return (2 * np.random.default_rng(seed).normal(size=vocab)).astype(np.float32)


@jax.jit
def run(logits, keys, options):
    """Many draws from one distribution."""
    rows = jnp.broadcast_to(logits[None], (keys.shape[0], logits.shape[0]))
    return sampling.sample(rows, keys, options)


def check_frequencies(tokens, probs):
    """Chi-square, tokens expected less than five times taken together."""
    seen, expected = np.bincount(tokens, minlength=len(probs)), len(tokens) * probs
    rare = expected < 5
    seen = np.append(seen[~rare], seen[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    seen, expected = seen[expected > 0], expected[expected > 0]
    freedom = len(expected) - 1
    square = ((seen - expected) ** 2 / expected).sum()
    # Four standard deviations above what is expected.
    assert square < freedom + 4 * np.sqrt(2 * freedom)


# One block and less, exact blocks, one token more, many blocks and part of one.
@pytest.mark.parametrize("vocab", [4, 20, 128, 129, 300])
def test_frequencies_follow_the_distribution(vocab):
    logits = spread(vocab)
    tokens = np.asarray(run(logits, keys_of(20_000), Sampling(2.0))[0])
    check_frequencies(tokens, softmax(logits / 2))


def kept_by(options, probs):
    """Which tokens the filters leave, by sorting."""
    kept = np.ones(len(probs), bool)
    if options.get("top_k"):
        kept &= probs >= np.sort(probs)[-options["top_k"]]
    if "top_p" in options:
        order = np.argsort(-probs)
        enough = np.searchsorted(probs[order].cumsum(), options["top_p"])
        kept[order[enough + 1 :]] = False
    return kept & (probs >= options.get("min_p", 0) * probs.max())


@pytest.mark.parametrize(
    "options",
    [{"top_k": 50}, {"top_p": 0.7}, {"min_p": 0.05}, {"top_k": 400, "top_p": 0.9}],
)
def test_filters_narrow_what_is_drawn_and_say_by_how_much(options):
    logits = spread(4096, seed=1)
    probs = softmax(logits.astype(np.float64))
    kept = kept_by(options, probs)
    assert 10 < kept.sum() < 2000
    tokens, log_probs, log_mass = run(logits, keys_of(4000), Sampling(1.0, **options))
    assert kept[tokens].all()
    check_frequencies(np.asarray(tokens), np.where(kept, probs, 0) / probs[kept].sum())
    # Log-probs speak of the full distribution, the mass of what was left of it.
    np.testing.assert_allclose(log_probs, np.log(probs[tokens]), atol=1e-4)
    np.testing.assert_allclose(log_mass, np.log(probs[kept].sum()), atol=1e-4)


def test_without_filters_all_mass_is_kept():
    logits, temperature = spread(300), 0.7
    tokens, log_probs, log_mass = run(logits, keys_of(8), Sampling(temperature))
    expected = np.log(softmax(logits / temperature))[tokens]
    np.testing.assert_allclose(log_probs, expected, atol=1e-5)
    np.testing.assert_array_equal(log_mass, 0)


def test_greedy_is_a_temperature_of_the_same_program():
    logits = spread(77)
    count = run._cache_size()
    drawn = run(logits, keys_of(64), Sampling(1.0, top_k=5))[0]
    tokens, log_probs, log_mass = run(logits, keys_of(64), Sampling(0.0, top_k=5))
    assert run._cache_size() == count + 1
    assert len(set(drawn.tolist())) > 1
    np.testing.assert_array_equal(tokens, logits.argmax())
    expected = np.log(softmax(logits).max())
    np.testing.assert_allclose(log_probs, expected, atol=1e-5)
    np.testing.assert_array_equal(log_mass, 0)


def test_the_key_alone_decides():
    logits = spread(40)
    together = run(logits, keys_of(16), Sampling(1.0))[0]
    backwards = run(logits, keys_of(16, backwards=True), Sampling(1.0))[0]
    np.testing.assert_array_equal(together, backwards[::-1])
    assert (run(logits, keys_of(16, seed=1), Sampling(1.0))[0] != together).any()


def masses_of(vocab, rows):
    """Random masses, half of them 0, with none at the beginning and at the end."""
    rng = np.random.default_rng(0)
    shape = (rows, vocab)
    masses = rng.random(shape, np.float32) * (rng.random(shape) < 0.5)
    masses[:, : vocab // 8] = masses[:, -vocab // 3 :] = 0
    masses[:, vocab // 2] = 0.1
    return masses


@pytest.mark.parametrize("uniform", [np.float32(0), np.float32(0.5), UNIFORM_TOP, TOP])
@pytest.mark.parametrize("vocab", [20, 300, 70_000])
def test_a_token_without_mass_is_never_drawn(vocab, uniform):
    masses = masses_of(vocab, rows=200)
    uniforms = jnp.full((200, 2), uniform)
    drawn = np.asarray(jax.jit(sampling.draw)(masses, uniforms))
    assert (np.take_along_axis(masses, drawn[:, None], 1) > 0).all()
    if uniform == 0:
        np.testing.assert_array_equal(drawn, (masses > 0).argmax(1))


def test_draws_invert_the_cumulative_mass():
    masses = jnp.array([[1.0, 0.0, 2.0, 1.0]] * 5)
    uniforms = jnp.array([0.0, 0.24, 0.26, 0.74, 0.76])
    drawn = sampling.draw(masses, jnp.stack([jnp.zeros(5), uniforms], axis=1))
    assert drawn.tolist() == [0, 0, 2, 2, 3]
    # Two blocks of equal mass: the first number chooses between them.
    blocks = jnp.tile(jnp.repeat(jnp.array([1.0, 0.0]), 64), 2)[None]
    both = jnp.array([[0.49, 0.999], [0.51, 0.0]])
    drawn = sampling.draw(jnp.concatenate([blocks, blocks]), both)
    assert drawn.tolist() == [63, 128]


def test_options_are_those_of_the_configuration():
    asked = config.SamplingConfig(temperature=0.5, top_k=7, top_p=0.9, min_p=0.1)
    assert Sampling.of(asked) == Sampling(0.5, top_k=7, top_p=0.9, min_p=0.1)
    assert hash(Sampling(1.0)) == hash(Sampling(1.0)) != hash(Sampling(1.0, top_k=3))
