"""An expert takes the place of a bad row, and only what it wrote counts."""

import contextlib
import dataclasses
from typing import NamedTuple

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.environments.search import Search
from grpo_jax.objective import weights
from grpo_jax.records import Origin, Trajectories
from grpo_jax.retrieval.base import Document, Failure
from grpo_jax.retrieval.cache import QueryCache
from grpo_jax.retrieval.load import open_documents
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.rewards.tags import COMPACT
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks import experts
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import run as runs
from grpo_jax.trainer import seeding, substitutes

NAN = float("nan")
PROMPT, COMPLETION, GROUP = 64, 400, 4


def config_of(**experts_fields):
    return c.TrainConfig(
        policy=c.PolicyConfig(preset="miniature-agent", tokenizer="search-characters"),
        task=c.TaskConfig(
            name="world",
            tags=choices.Tags.COMPACT,
            world=WorldConfig(
                entities=64, train_questions=8, validation_questions=2, test_questions=2
            ),
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=3,
            group_size=GROUP,
            max_prompt_tokens=PROMPT,
            max_completion_tokens=COMPLETION,
        ),
        episode=c.EpisodeConfig(environment="search"),
        retrieval=RetrievalConfig(top_k=1),
        reward=c.RewardConfig(weights={"david": 1.0}),
        experts=c.ExpertsConfig(**{"below": 0.5, **experts_fields}),
        mesh=c.MeshConfig(data=4, fsdp=1, tensor=2),
    ).seal()


@pytest.fixture(scope="module")
def run():
    with contextlib.closing(runs.build(config_of())) as run:
        yield run


class Down:
    documents = ()

    def search(self, queries, k):
        return [Failure("it is down") for _ in queries]

    def describe(self):
        return {}

    def close(self):
        pass


class Seeded(NamedTuple):
    trajectories: Trajectories
    totals: np.ndarray
    replaced: list[int]
    metrics: dict[str, float]


def rows_of(run, count=3):
    """Groups of rows that all say ten times token 9."""
    prompts = run.model.encode(run.task.train[:count])
    rows, width = count * GROUP, PROMPT + COMPLETION
    tokens, origins = np.zeros((rows, width), np.int32), np.zeros((rows, width))
    starts = np.repeat([len(prompt.tokens) for prompt in prompts], GROUP)
    for row, start in enumerate(starts):
        tokens[row, :start] = prompts[row // GROUP].tokens
        tokens[row, start : start + 10] = 9
        origins[row, :start] = Origin.PROMPT
        origins[row, start : start + 10] = Origin.SAMPLED
    return prompts, Trajectories(
        tokens=tokens,
        origins=origins.astype(np.uint8),
        behavior_log_probs=np.where(origins == Origin.SAMPLED, -1, 0).astype(
            np.float32
        ),
        kept_log_mass=np.zeros((rows, width), np.float32),
        prompt_lengths=starts.astype(np.int32),
        lengths=(starts + 10).astype(np.int32),
        finished=np.zeros(rows, bool),
    )


def check_same(a, b, rows=slice(None)):
    for field in dataclasses.fields(Trajectories):
        pair = getattr(a, field.name)[rows], getattr(b, field.name)[rows]
        np.testing.assert_array_equal(*pair)


def seed(run, totals, limit=COMPLETION, **fields):
    run = dataclasses.replace(run, config=config_of(**fields))
    prompts, rows = rows_of(run)
    totals = np.array(totals, float)
    found, counts = seeding.seed(run, prompts, totals, limit)
    before = jax.tree.map(np.array, rows)
    seeded = Seeded(
        substitutes.put_rows(rows, found),
        substitutes.put_totals(totals, found),
        [each.place for each in found],
        seeding.metrics(counts, len(prompts), run.config.experts),
    )
    check_same(rows, before)  # what was given stays
    return prompts, rows, seeded


GOOD, BAD = [0.5, 0.0, 0.2, 0.1], [0.2, 0.1, 0.0, 0.0]


def test_a_bad_group_gets_an_expert_in_place_of_its_first_worst_row(run):
    prompts, rows, seeded = seed(run, [*GOOD, *BAD, *GOOD])
    assert seeded.replaced == [6]
    np.testing.assert_array_equal(seeded.totals[:6], [*GOOD, *BAD[:2]])
    assert seeded.totals[6] == 1.0
    others = np.arange(12) != 6
    check_same(seeded.trajectories, rows, others)
    start, end = (
        getattr(seeded.trajectories, name)[6] for name in ("prompt_lengths", "lengths")
    )
    tokens = seeded.trajectories.tokens[6]
    assert tokens[:start].tolist() == prompts[1].tokens
    segments = experts.segments(COMPACT, run.task.experts[prompts[1].example.id])
    decode = run.model.tokenizer.decode
    assert decode(tokens[start:end].tolist()) == "".join(x.text for x in segments)
    assert tokens[end - 1] == run.model.tokenizer.eos_ids[0]
    assert not tokens[end:].any() and seeded.trajectories.finished[6]
    assert not seeded.trajectories.behavior_log_probs[6].any()
    # What the expert was shown is an observation, to the letter.
    origins = seeded.trajectories.origins[6]
    shown = decode(tokens[origins == Origin.OBSERVATION].tolist())
    assert shown == "".join(each.text for each in segments if each.observed) != ""
    assert (origins[end:] == Origin.PAD).all()
    assert seeded.metrics == {
        "expert/seeded_fraction": 1 / 3,
        "expert/unknown_fraction": 0,
        "expert/too_long_fraction": 0,
    }


def test_rows_without_a_reward_go_first_and_groups_without_any_stay(run):
    _, _, seeded = seed(run, [0.1, 0.0, NAN, 0.1, *[NAN] * 4, *GOOD])
    assert seeded.replaced == [2]
    assert np.isnan(seeded.totals[4:8]).all()


def test_what_is_too_long_or_unknown_is_counted(run):
    _, _, seeded = seed(run, BAD * 3, limit=20)
    assert len(seeded.replaced) == 0
    assert seeded.metrics["expert/too_long_fraction"] == 1
    nobody = dataclasses.replace(run, task=dataclasses.replace(run.task, experts={}))
    _, _, seeded = seed(nobody, BAD * 3)
    assert seeded.metrics["expert/unknown_fraction"] == 1


def test_an_expert_may_be_worth_what_the_rewards_say(run):
    _, _, seeded = seed(run, [*GOOD, *BAD, *GOOD], reward=0.0)
    assert seeded.totals[6] == 1.0  # all evidence, the right answer, in good form
    _, _, seeded = seed(run, [*GOOD, *BAD, *GOOD], reward=0.75)
    assert seeded.totals[6] == 0.75


@pytest.mark.parametrize("loss", choices.ExpertLoss)
def test_only_what_was_written_is_in_the_loss(run, loss):
    _, _, seeded = seed(run, [*GOOD, *BAD, *GOOD])
    batch = batches.make_batch(
        seeded.trajectories,
        seeded.totals,
        np.ones(12, np.float32),
        c.ObjectiveConfig(),
        COMPLETION,
        experts=loss,
    )
    counted = batch.loss_weights != 0
    written = np.isin(batch.origins, (Origin.SAMPLED, Origin.EXPERT))
    np.testing.assert_array_equal(counted, written)
    assert (batch.origins[counted] == Origin.EXPERT).any()
    off_policy = weights.expert_origins(loss)[1]
    assert bool(off_policy) == (loss is choices.ExpertLoss.OFF_POLICY)


def test_replayed_experts_are_worth_what_they_found(run):
    _, _, seeded = seed(run, [*GOOD, *BAD, *BAD], replay=True, reward=0.0)
    assert seeded.totals[[6, 10]].tolist() == [1.0, 1.0]
    assert seeded.metrics == {
        "expert/seeded_fraction": 2 / 3,
        "expert/unknown_fraction": 0,
        "expert/too_long_fraction": 0,
        "expert/failed_fraction": 0,
        "expert/coverage_mean": 1.0,
    }
    assert run.environment.take_metrics()["retrieval/queries"] > 0
    # Nothing is in this library but a document that no question needs.
    other = open_documents([Document("x", "", "word")], run.config.retrieval)
    other = dataclasses.replace(run, environment=Search(other, COMPACT, 1))
    _, _, seeded = seed(other, [*GOOD, *BAD, *GOOD], replay=True, reward=0.0)
    assert seeded.totals[6] == 0.5  # the right answer alone
    assert seeded.metrics["expert/coverage_mean"] == 0
    decode = run.model.tokenizer.decode
    assert "No document was found." in decode(seeded.trajectories.tokens[6])


def test_an_expert_whose_replay_fails_is_counted_and_not_used(run):
    down = QueryCache(Down(), 0)
    other = dataclasses.replace(run, environment=Search(down, COMPACT, 1))
    _, _, seeded = seed(other, [*GOOD, *BAD, *GOOD], replay=True)
    assert seeded.replaced == []
    assert seeded.metrics["expert/failed_fraction"] == 1 / 3
    assert np.isnan(seeded.metrics["expert/coverage_mean"])


def test_as_many_experts_are_known_as_may_be():
    with contextlib.closing(runs.build(config_of(most=2))) as few:
        assert list(few.task.experts) == [0, 1]
        _, _, seeded = seed(few, BAD * 3, most=2)
    assert seeded.replaced == [2, 6]
    assert seeded.metrics["expert/unknown_fraction"] == 1 / 3


def test_what_does_not_go_together_is_refused(run):
    with pytest.raises(ValueError, match=r"replay is True and .*loss is importance"):
        config_of(replay=True, loss=choices.ExpertLoss.IMPORTANCE)
    config = dataclasses.replace(config_of(replay=True), episode=c.EpisodeConfig())
    with pytest.raises(ValueError, match=r"experts.replay is True .*environment is ''"):
        runs.build(config.seal())
    config = dataclasses.replace(
        config_of(),
        episode=c.EpisodeConfig(),
        guidance=c.GuidanceConfig(fraction=0.5, signal_reward="david"),
        reward=c.RewardConfig(weights={"david": 1.0, "accuracy": 0.0}),
    )
    with pytest.raises(ValueError, match=r"guidance.fraction is in use"):
        config.seal()
    with pytest.raises(ValueError, match="question 0.*0 log_probs in turn 0.*tokens"):
        runs.build(config_of(loss=choices.ExpertLoss.IMPORTANCE))
    arithmetic = c.TrainConfig(
        policy=c.PolicyConfig(tokenizer="characters"),
        rollout=c.RolloutConfig(max_prompt_tokens=16, max_completion_tokens=16),
        experts=c.ExpertsConfig(below=1.0),
    )
    with pytest.raises(ValueError, match="task 'arithmetic' knows no expert"):
        runs.build(arithmetic.seal())
