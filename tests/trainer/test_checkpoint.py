import contextlib
import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax.config import OptimizerConfig
from grpo_jax.policy import sharding, transformer
from grpo_jax.trainer.checkpoint import Checkpoints
from grpo_jax.trainer.optimizer import make_optimizer, make_schedule
from grpo_jax.trainer.step import init_state
from tests import helpers

pytestmark = pytest.mark.system

ARCH = dataclasses.replace(helpers.TINY, num_layers=1)


@pytest.fixture(scope="module")
def optimizer():
    return make_optimizer(OptimizerConfig(), make_schedule(OptimizerConfig(), 10))


@pytest.fixture
def state(optimizer):
    state = init_state(helpers.params_of(ARCH), optimizer, helpers.one_device_mesh())
    # No leaf is what it started as.
    return jax.tree.map(lambda x: x + jnp.ones_like(x), state)


def opened(directory, keep_last=2, best_metric="", **rule):
    return contextlib.closing(
        Checkpoints(directory, keep_last=keep_last, best_metric=best_metric, **rule)
    )


def steps_in(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.is_dir())


def assert_same(got, expected):
    jax.tree.map(np.testing.assert_array_equal, *jax.device_get((got, expected)))


def test_everything_comes_back(tmp_path, state):
    position = {"stream": {"epoch": 2, "order": [1, 2]}, "seconds": {"rollout": 1.5}}
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step is None
        checkpoints.save(7, state, position, {"reward/mean": float("nan")})
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 7
        restored, found = checkpoints.restore(helpers.abstract_like(state))
        weights = checkpoints.restore_params(helpers.abstract_like(state.params))
    assert found == position
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert_same(restored, state)
    assert_same(weights, state.params)


def test_the_state_may_be_given_away_while_it_is_written(tmp_path, state):
    expected = jax.tree.map(np.array, jax.device_get(state))
    change = jax.jit(
        lambda state: jax.tree.map(lambda x: x * 0 - 1, state), donate_argnums=0
    )
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"step": 0}, {})
        for _ in range(3):
            state = change(state)
    with opened(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(helpers.abstract_like(state))
    assert_same(restored, expected)


def test_the_last_and_the_best_are_kept(tmp_path, state):
    scores = {1: 0.2, 2: 0.9, 3: None, 4: 0.5, 5: 0.1, 6: None}
    with opened(tmp_path, best_metric="score") as checkpoints:
        for step, score in scores.items():
            metrics = {"other": 1.0} if score is None else {"score": score}
            checkpoints.save(step, state, {"step": step}, metrics)
    assert steps_in(tmp_path) == [2, 5, 6]
    with opened(tmp_path, best_metric="score") as checkpoints:
        assert checkpoints.best_step == 2 and checkpoints.latest_step == 6
        assert checkpoints.restore(helpers.abstract_like(state), 2)[1] == {"step": 2}


def test_the_first_within_a_standard_error_of_the_highest_is_the_best(tmp_path, state):
    # The highest is .62 +- .05; .60 came first, .58 before it was not the highest.
    scores = {1: 0.2, 2: 0.5, 3: 0.6, 4: 0.58, 5: 0.62, 6: 0.61, 7: 0.3}
    rule = {"best_metric": "score", "best_rule": choices.Best.ONE_STANDARD_ERROR}
    best = []
    with opened(tmp_path, keep_last=1, **rule) as checkpoints:
        for step, score in scores.items():
            metrics = {"score": score, "score_standard_error": 0.05}
            checkpoints.save(step, state, {"step": step}, metrics)
            checkpoints.wait()
            best.append(checkpoints.best_step)
    assert best == [1, 2, 3, 3, 3, 3, 3]
    assert steps_in(tmp_path) == [3, 5, 7]  # 3 is the best and 5 could become it
    with opened(tmp_path, keep_last=1, **rule) as checkpoints:
        metrics = {"score": 0.66, "score_standard_error": 0.05}
        checkpoints.save(8, state, {"step": 8}, metrics)
    assert steps_in(tmp_path) == [5, 8]
    with opened(tmp_path, keep_last=1, **rule) as checkpoints:
        assert checkpoints.best_step == 5


@pytest.mark.parametrize("error", [{}, {"score_standard_error": float("nan")}])
def test_without_a_standard_error_the_highest_is_the_best(tmp_path, state, error):
    rule = {"best_metric": "score", "best_rule": choices.Best.ONE_STANDARD_ERROR}
    with opened(tmp_path, **rule) as checkpoints:
        for step, score in ((1, 0.5), (2, 0.6), (3, 0.6), (4, 0.1)):
            checkpoints.save(step, state, {"step": 0}, {"score": score, **error})
        checkpoints.wait()
        assert checkpoints.best_step == 2  # the earlier of equals


def test_without_a_metric_only_the_last_are_kept(tmp_path, state):
    with opened(tmp_path, keep_last=1) as checkpoints:
        for step in (3, 10):
            checkpoints.save(step, state, {"step": 0}, {"score": 1.0})
        assert checkpoints.best_step is None
    assert steps_in(tmp_path) == [10]


def test_a_metric_that_is_not_a_number_is_never_the_best(tmp_path, state):
    scores = {1: float("nan"), 2: 0.5, 3: float("nan"), 4: 0.1}
    with opened(tmp_path, keep_last=1, best_metric="score") as checkpoints:
        for step, score in scores.items():
            checkpoints.save(step, state, {"step": 0}, {"score": score})
    assert steps_in(tmp_path) == [2, 4]
    with opened(tmp_path, keep_last=1, best_metric="score") as checkpoints:
        assert checkpoints.best_step == 2


def test_another_mesh_reads_what_one_device_wrote(tmp_path, state, optimizer):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"step": 0}, {})
    mesh = sharding.make_mesh(2, 4, 1)
    params = transformer.init(ARCH, jax.random.key(9))
    with jax.set_mesh(mesh):
        params = jax.device_put(params, sharding.param_shardings(mesh, params))
        other = init_state(params, optimizer, mesh)
    with opened(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(helpers.abstract_like(other))
    assert_same(restored, state)
    wanted = jax.tree.map(lambda x: x.sharding, other)
    assert jax.tree.map(lambda x: x.sharding, restored) == wanted
    table = restored.params["embedding"]["table"]
    assert table.addressable_shards[0].data.shape == (48, 8)


def test_what_an_interrupted_save_left_is_not_seen(tmp_path, state):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"step": 1}, {})
    partial = tmp_path / "3.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", partial)
    shutil.rmtree(partial / "optimizer")
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 1
        assert checkpoints.restore(helpers.abstract_like(state))[1] == {"step": 1}
        checkpoints.save(2, state, {"step": 2}, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    with opened(tmp_path) as checkpoints:
        assert checkpoints.restore(helpers.abstract_like(state))[1] == {"step": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"feed_forward_dim": 96},
            "layers/feed_forward/down/kernel is (1, 64, 32) there and (1, 96, 32)",
        ),
        (
            {"tied_head": False},
            "head/kernel is absent there and (48, 32)",
        ),
    ],
)
def test_another_model_is_refused_by_name(tmp_path, state, optimizer, change, message):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, state, {"step": 0}, {})
    arch = dataclasses.replace(ARCH, **change)
    other = init_state(helpers.params_of(arch), optimizer, helpers.one_device_mesh())
    with opened(tmp_path) as checkpoints:
        for restore in (
            lambda: checkpoints.restore(helpers.abstract_like(other)),
            lambda: checkpoints.restore_params(helpers.abstract_like(other.params)),
        ):
            with pytest.raises(ValueError, match=re.escape(message)) as error:
                restore()
            assert "another --workdir" in str(error.value)


def test_a_missing_step_lists_those_there_are(tmp_path, state):
    with opened(tmp_path) as checkpoints:
        with pytest.raises(FileNotFoundError, match="it has none"):
            checkpoints.restore(helpers.abstract_like(state))
        checkpoints.save(1, state, {"step": 0}, {})
        checkpoints.save(4, state, {"step": 0}, {})
    message = "has no checkpoint of step 3; it has .*1.*4"
    with (
        opened(tmp_path) as checkpoints,
        pytest.raises(FileNotFoundError, match=message),
    ):
        checkpoints.restore(helpers.abstract_like(state), 3)
