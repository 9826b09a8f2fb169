import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.records import Origin, Trajectories
from grpo_jax.task_config import ArithmeticConfig
from grpo_jax.trainer import run as runs
from grpo_jax.trainer.batch import advantages_of
from grpo_jax.trainer.learner import Learner
from grpo_jax.trainer.policies import open_checkpoints
from tests import helpers

pytestmark = pytest.mark.system

ROWS, PROMPT, COMPLETION = 16, 12, 8


def config_of(trainer=(), objective=(), **changes):
    config = c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature",
            tokenizer="characters",
            dtype=choices.Dtype.FLOAT32,
            remat=choices.Remat.NONE,
        ),
        task=c.TaskConfig(
            arithmetic=ArithmeticConfig(
                train_problems=32, validation_problems=8, test_problems=8
            )
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=4,
            group_size=4,
            max_prompt_tokens=PROMPT,
            max_completion_tokens=COMPLETION,
        ),
        optimizer=c.OptimizerConfig(learning_rate=1e-2),
        objective=c.ObjectiveConfig(**dict(objective)),
        trainer=c.TrainerConfig(steps=4, **dict(trainer)),
        **changes,
    )
    return config.seal()


def built(config):
    """A run on one device, whatever the number there is: less to compile."""
    run = runs.build(config)
    model = dataclasses.replace(run.model, mesh=helpers.one_device_mesh())
    return dataclasses.replace(run, model=model)


def trajectories_of(vocab, seed=0):
    """Rows of random tokens, some of them truncated."""
    rng = np.random.default_rng(seed)
    prompts = np.repeat(rng.integers(3, PROMPT, ROWS // 4), 4).astype(np.int32)
    lengths = prompts + rng.integers(1, COMPLETION + 1, ROWS).astype(np.int32)
    columns = np.arange(PROMPT + COMPLETION)[None]
    shape = (ROWS, PROMPT + COMPLETION)
    origins = np.full(shape, Origin.SAMPLED, np.uint8)
    origins[columns < prompts[:, None]] = Origin.PROMPT
    origins[columns >= lengths[:, None]] = Origin.PAD
    return Trajectories(
        tokens=rng.integers(3, vocab, shape).astype(np.int32),
        origins=origins,
        behavior_log_probs=np.where(origins == Origin.SAMPLED, -4, 0).astype(
            np.float32
        ),
        kept_log_mass=np.zeros(shape, np.float32),
        prompt_lengths=prompts,
        lengths=lengths,
        finished=lengths - prompts < COMPLETION,
    )


class Recording:
    """An update that remembers what it was given and what it said."""

    def __init__(self, update):
        self.update, self.calls = update, []

    def __getattr__(self, name):
        return getattr(self.update, name)

    def __call__(self, state, micros):
        state, metrics = self.update(state, micros)
        self.calls.append(jax.device_get((micros, metrics)))
        return state, metrics


class Case:
    """A run, its learner and one rollout to learn from."""

    def __init__(self, config, workdir):
        self.config, self.run, self.workdir = config, built(config), workdir
        self.params = jax.device_get(self.run.model.initial_params())
        self.trajectories = trajectories_of(self.run.model.arch.vocab_size)
        self.rewards = np.random.default_rng(1).integers(0, 2, ROWS).astype(float)
        self.learner = Learner(self.run, self.run.model.initial_params(), workdir)
        self.learner._update = Recording(self.learner._update)
        self.updates = self.learner._update.calls

    def learn(self, advantages=None):
        if advantages is None:
            advantages = advantages_of(self.rewards, self.config)
        return self.learner.learn(self.trajectories, self.rewards, advantages)


@pytest.fixture
def case(tmp_path):
    def make(**changes):
        return Case(config_of(**changes), tmp_path)

    return make


def moved(case):
    return [
        float(np.abs(new - old).max())
        for new, old in zip(
            jax.tree.leaves(jax.device_get(case.learner.state.params)),
            jax.tree.leaves(case.params),
            strict=True,
        )
    ]


def test_one_update_a_rollout_needs_no_old_log_probs(case):
    case = case()
    metrics = case.learn()
    assert metrics["policy/ratio_max"] == 1 and metrics["policy/clip_fraction"] == 0
    assert "loss/kl" not in metrics and metrics["optimizer/skipped"] == 0
    (((part,), _),) = case.updates
    assert part.old_log_probs is None and part.reference_log_probs is None
    assert int(case.learner.state.step) == int(case.learner.state.updates) == 1
    assert max(moved(case)) > 1e-3
    # The advantages of a group sum to 0 and every ratio is 1: so does the loss.
    assert metrics["loss/total"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("tokens", [0, 64])
def test_passes_and_minibatches_are_measured_against_the_start(case, tokens):
    trainer = {"num_iterations": 2, "minibatches": 2, "micro_batch_tokens": tokens}
    case = case(trainer=trainer)
    metrics = case.learn()
    assert len(case.updates) == 4
    assert int(case.learner.state.step) == 1 and int(case.learner.state.updates) == 4
    parts = [micros for micros, _ in case.updates]
    assert all((len(micros) > 1) == (tokens > 0) for micros in parts)
    for first, again in zip(parts[:2], parts[2:], strict=True):
        for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(x, y)
    for part, micros in enumerate(parts[:2]):
        rows = [
            row for micro in micros for row in micro.tokens[:, :4].tolist() if row[0]
        ]
        expected = case.trajectories.tokens[part * ROWS // 2 :][: ROWS // 2, :4]
        assert sorted(rows) == sorted(expected.tolist())
        assert sum(m.loss_weights.sum() for m in micros) == pytest.approx(1)
    ratios = [float(seen["policy/ratio_max"]) for _, seen in case.updates]
    assert ratios[0] == pytest.approx(1, abs=1e-6)
    assert all(ratio > 1.001 for ratio in ratios[1:])
    assert metrics["policy/ratio_max"] == max(ratios)
    least = [float(seen["policy/ratio_min"]) for _, seen in case.updates]
    assert metrics["policy/ratio_min"] == min(least) < max(least)
    losses = [float(seen["loss/total"]) for _, seen in case.updates]
    assert metrics["loss/total"] == pytest.approx(np.mean(losses))


def test_micro_batches_change_no_step(case):
    """Of a step with everything: two updates, old and reference log-probs."""
    results = []
    for tokens in (1, 100, 0):
        made = case(
            trainer={"minibatches": 2, "micro_batch_tokens": tokens},
            objective={"kl_coef": 0.1},
        )
        made.learn()
        metrics = made.learn()
        padding = metrics.pop("trainer/padding_fraction")
        slots = sum(m.tokens.size for micros, _ in made.updates[2:] for m in micros)
        assert padding == pytest.approx(1 - made.trajectories.lengths.sum() / slots)
        results.append((metrics, jax.device_get(made.learner.state)))
    # The largest of the micro-batches' quantiles, which is at least that of all.
    quantiles = [metrics.pop("loss/kl_p95") for metrics, _ in results]
    assert min(quantiles) == pytest.approx(quantiles[-1], rel=1e-4)
    for metrics, state in results[:-1]:
        assert metrics == pytest.approx(results[-1][0], rel=1e-4, abs=1e-6)
        # The first moments are means of the gradients, which is what micro-batches add
        # up to. Weights divide them by their own size: where that is nothing but
        # rounding they may differ by part of a learning rate, which is 1e-2.
        for name, atol in (("opt_state", 1e-6), ("params", 1e-3)):
            jax.tree.map(
                lambda a, b, atol=atol: np.testing.assert_allclose(a, b, atol=atol),
                getattr(state, name),
                getattr(results[-1][1], name),
            )


def test_the_reference_stays(case):
    case = case(objective={"kl_coef": 0.1})
    first = case.learn()
    assert first["loss/kl"] == pytest.approx(0, abs=1e-9)
    second = case.learn()
    assert second["loss/kl"] > 1e-4
    assert max(moved(case)) > 1e-3
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(case.learner._reference),
        case.params,
    )
    parts = [micros[0] for micros, _ in case.updates]
    np.testing.assert_array_equal(
        parts[0].reference_log_probs, parts[1].reference_log_probs
    )


def test_nonfinite_updates_are_skipped_dumped_and_then_fatal(case):
    case = case(trainer={"max_nonfinite_updates": 2})
    bad = advantages_of(case.rewards, case.config).copy()
    bad[5] = np.inf
    metrics = case.learn(bad)
    assert metrics["optimizer/skipped"] == 1 and case.learner.skipped_in_a_row == 1
    assert case.learn()["optimizer/skipped"] == 0
    assert case.learner.skipped_in_a_row == 0
    good = jax.device_get(case.learner.state.params)
    case.learn(bad)
    folder = case.workdir / "nonfinite"
    message = "step 4: 2 updates in a row had a loss .* lower config.optimizer"
    with pytest.raises(FloatingPointError, match=message) as error:
        case.learn(bad)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"step_00000{step}_update_1.npz" for step in (1, 3, 4)]
    assert str(folder / names[-1]) in str(error.value)
    jax.tree.map(
        np.testing.assert_array_equal, jax.device_get(case.learner.state.params), good
    )
    with np.load(folder / names[0]) as dumped:
        np.testing.assert_array_equal(dumped["advantages"], bad)
        np.testing.assert_array_equal(dumped["tokens"], case.trajectories.tokens)
        assert "old_log_probs" not in dumped and "allow_pickle" not in dumped


def test_a_dumped_batch_has_its_log_probs_in_its_order(case):
    case = case(objective={"kl_coef": 0.1}, trainer={"micro_batch_tokens": 64})
    case.learn(np.full(ROWS, np.inf, np.float32))
    with np.load(case.workdir / "nonfinite" / "step_000001_update_1.npz") as dumped:
        got = dumped["reference_log_probs"]
    rows = case.trajectories.tokens, case.trajectories.prompt_lengths
    expected = jax.jit(case.run.scorer().log_probs)(case.params, *rows)[0]
    real = case.trajectories.origins == Origin.SAMPLED
    assert len(case.updates[0][0]) > 2
    np.testing.assert_allclose(got[real], np.asarray(expected)[real], atol=1e-5)


def test_a_restored_learner_is_the_one_that_was_saved(case):
    case = case()
    case.learn()
    case.learner.skipped_in_a_row = 1
    saved = jax.device_get(case.learner.state)
    with contextlib.closing(open_checkpoints(case.config, case.workdir)) as checkpoints:
        case.learner.save(checkpoints, {"stream": {"epoch": 3}}, {})
        expected = case.learn(), jax.device_get(case.learner.state)
    assert int(case.learner.state.step) == 2 and case.learner.skipped_in_a_row == 0
    with contextlib.closing(open_checkpoints(case.config, case.workdir)) as checkpoints:
        position = case.learner.restore(checkpoints)
    assert position["stream"] == {"epoch": 3} and case.learner.skipped_in_a_row == 1
    state = jax.device_get(case.learner.state)
    jax.tree.map(np.testing.assert_array_equal, state, saved)
    # And goes on as the other one did.
    again = case.learn(), jax.device_get(case.learner.state)
    jax.tree.map(np.testing.assert_array_equal, again, expected)
