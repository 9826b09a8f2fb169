"""Groups go on from what their best row found; what comes of it, and what it costs."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.data.examples import Example
from grpo_jax.environments.base import Reply
from grpo_jax.expansion_config import ExpansionConfig
from grpo_jax.objective import weights
from grpo_jax.records import Origin
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.reading import Query
from grpo_jax.rollout import groups
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks.base import Task
from grpo_jax.trainer import expansion
from grpo_jax.trainer import run as runs
from grpo_jax.trainer.metrics import StepTimer
from grpo_jax.trainer.model import ROLLOUT

NAN = float("nan")
EVIDENCE = (("a",), ("b", "b2"))


def episode(*shown, group=0, evidence=EVIDENCE):
    """An episode that was shown these documents, one tuple a call."""
    turns = (*(Turn("q", f"q{n}", each) for n, each in enumerate(shown)), Turn("x"))
    return Completion("", "", "", 1, True, group, {"evidence": evidence}, turns=turns)


NOTHING = episode()
HALF = episode(("c",), ("a",), ("a", "d"))
ALL = episode(("b2",), ("c",), ("a",), ("b",))


@pytest.mark.parametrize(
    ("shown", "replies"), [(NOTHING, 0), (HALF, 2), (ALL, 3), (episode(("c",)), 0)]
)
def test_the_cut_is_behind_the_first_reply_with_all_that_was_found(shown, replies):
    found = expansion.replies_to_best_coverage(EVIDENCE, shown.turns)
    assert found == replies


def test_a_malformed_turn_was_replied_to_as_well():
    turns = (Turn("?", malformed=True), Turn("q", "q", ("a",)), Turn("x"))
    assert expansion.replies_to_best_coverage(EVIDENCE, turns) == 2


def plan(rows, totals, size=4, below=1.0, min_coverage=0.0):
    return expansion.plan(rows, np.array(totals, float), size, below, min_coverage)


def test_rows_are_ranked_by_reward_then_evidence_then_few_calls():
    rows = [NOTHING, HALF, ALL, HALF]
    assert plan(rows, [0.5, 0, 0, 0.2]) == [(0, 0, 1, 0)]  # of 1 and 2, less was found
    assert plan(rows, [0, 0, 0, 0]) == [(0, 2, 0, 3)]
    shorter = episode(("a",), ("b",))
    assert plan([shorter, ALL, ALL, ALL], [0.0] * 4) == [(0, 0, 3, 2)]
    # Who has no reward is replaced first, and never gone on from.
    assert plan(rows, [0.1, 0.2, NAN, 0.3]) == [(0, 3, 2, 2)]


def test_groups_that_cannot_or_need_not_go_on_are_left_alone():
    rows = [NOTHING, HALF, ALL, HALF]
    assert plan(rows, [0, 0, 1.0, 0]) == []
    assert plan(rows, [0, 0, 1.0, 0], below=1.5)
    assert plan(rows, [NAN] * 4) == []
    assert plan([episode(evidence=())] * 4, [0] * 4) == []
    assert plan([HALF] * 4, [0] * 4, min_coverage=0.6) == []
    assert plan([HALF] * 4, [0] * 4, min_coverage=0.5)
    two = plan(rows + rows, [0, 0, 1.0, 0, *[0] * 4])
    assert two == [(1, 6, 4, 3)]


# With a policy: random weights, and a tool that shows the next gold document.


class Helpful:
    stops = ("e",)

    def reset(self, examples, histories):
        self.gold = [each.columns["evidence"] for each in examples]
        self.asked = [len(each) for each in histories]

    def read(self, turn):
        return Query(turn, malformed=False)

    def step(self, rows, queries):
        replies = []
        for row in rows:
            gold = self.gold[row]
            shown = gold[self.asked[row]] if self.asked[row] < len(gold) else ("none",)
            replies.append(Reply("shown.", "", tuple(shown[:1])))
            self.asked[row] += 1
        return replies

    def notice(self, notice):
        return Reply("told.")

    def describe(self):
        return {}

    def take_metrics(self):
        return {}

    def close(self):
        pass


def luck(completions):
    """Any number below 1 that depends on all that was written."""
    return [sum(map(ord, each.text)) % 97 / 100 for each in completions]


def config_of(**fields):
    return c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature-agent",
            tokenizer="search-characters",
            dtype=choices.Dtype.FLOAT32,
        ),
        task=c.TaskConfig(
            name="world",
            tags=choices.Tags.COMPACT,
            world=WorldConfig(
                entities=64, train_questions=8, validation_questions=2, test_questions=2
            ),
        ),
        rollout=c.RolloutConfig(
            prompts_per_step=2,
            group_size=4,
            max_prompt_tokens=64,
            max_completion_tokens=120,
        ),
        episode=c.EpisodeConfig(environment="search", max_calls=3, turn_tokens=60),
        reward=c.RewardConfig(weights={"david": 1.0}),
        expansion=ExpansionConfig(**{"continuations": 3, **fields}),
    ).seal()


@pytest.fixture(scope="module")
def rolled():
    """A run, a session in which two groups were written, and what came of it."""
    with contextlib.closing(runs.build(config_of())) as built:
        run = dataclasses.replace(
            built, environment=Helpful(), rewards={"luck": (1.0, luck)}
        )
        with jax.set_mesh(run.model.mesh):
            session = run.session(
                run.model.rollout_setup(),
                run.model.rollout_view(run.model.initial_params()),
                sampling=Sampling(1.0),
                key=run.model.key(ROLLOUT),
                step=1,
            )
            prompts = run.model.encode(run.task.train[:2])
            written = run.write(session, prompts, 4)
            rows = session.trajectories(written.rows)
            seen = groups.completions(
                rows, prompts, run.model.tokenizer, 120, written.turns
            )
            yield run, session, written, prompts, rows, seen


def expand(rolled, totals, **fields):
    run, session, written, prompts, rows, seen = rolled
    run = dataclasses.replace(run, config=config_of(**fields))
    with jax.set_mesh(run.model.mesh):
        return expansion.expand(
            run, session, written, prompts, seen, np.array(totals, float), StepTimer()
        )


def test_a_better_continuation_takes_the_place_of_the_worst_row(rolled):
    run, session, written, _, rows, seen = rolled
    found, ledger = expand(rolled, [-1.0] * 3 + [-2.0] + [1.0] * 4)
    [one] = found
    assert one.place == 3 and one.total == one.values[0] == luck([one.completion])[0]
    best = max(range(3), key=lambda row: len({*_gold(seen[row])}))
    assert one.note.startswith(f"goes on from sample {best}, ")
    cut = expansion.replies_to_best_coverage(
        seen[best].columns["evidence"], seen[best].turns
    )
    assert cut > 0 and one.completion.turns[:cut] == seen[best].turns[:cut]
    assert one.completion.group == 0
    assert ledger["groups"] == ledger["replaced"] == 1
    assert ledger["continuations"] == 3
    # Only the new tokens were drawn, and only they are counted and trained.
    new = list(range(len(session.texts)))[-3:]
    drawn = session.trajectories(new)
    starts = [written.conversation.copied(row) for row in new]
    own = sum(
        int((drawn.origins[i, start:] == Origin.SAMPLED).sum())
        for i, start in enumerate(starts)
    )
    assert ledger["tokens"] == own
    said = one.trajectory
    start = starts[0]
    np.testing.assert_array_equal(said.tokens[0, :start], rows.tokens[best, :start])
    mask = np.asarray(weights.loss_mask(jnp.asarray(said.origins)))[0]
    assert not mask[:start].any() and mask[start:].any()
    assert (said.origins[0, :start] == Origin.FORCED).any()
    assert not said.behavior_log_probs[0, :start].any()


def test_what_is_shared_may_be_trained_again(rolled):
    _, _, _, _, rows, _ = rolled
    found, _ = expand(rolled, [-1.0] * 3 + [-2.0] + [1.0] * 4, mask_prefix=False)
    origins = found[0].trajectory.origins[0]
    best = int(found[0].note.split("sample ")[1][0])
    start = int((origins[:, None] == Origin.OBSERVATION).any(1).nonzero()[0][0])
    np.testing.assert_array_equal(origins[:start], rows.origins[best, :start])
    assert not (origins == Origin.FORCED).any()


def test_what_is_not_better_replaces_nothing_and_is_counted(rolled):
    found, ledger = expand(rolled, [0.98] * 8)
    assert found == [] and ledger["replaced"] == 0
    assert ledger["groups"] == 2 and ledger["continuations"] == 6
    assert ledger["tokens"] > 0
    counted = expansion.metrics(ledger, 2)
    assert counted["expansion/expanded_fraction"] == 1
    assert counted["expansion/continuations"] == 6
    assert counted["expansion/replaced_fraction"] == 0


def test_rollouts_are_not_changed_by_it(rolled):
    _, session, written, _, rows, _ = rolled
    again = session.trajectories(written.rows)
    for name in ("tokens", "origins", "lengths", "finished"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))


def test_it_needs_episodes_and_evidence():
    plain = dataclasses.replace(config_of(), episode=c.EpisodeConfig())
    with pytest.raises(ValueError, match="expansion.continuations is 3.*episode"):
        plain.seal()
    blind = dataclasses.replace(
        config_of(), task=c.TaskConfig(name=f"{__name__}:task_without_evidence")
    )
    with pytest.raises(ValueError, match="knows the gold documents of no question"):
        runs.build(blind.seal())


def task_without_evidence(config: c.TaskConfig) -> Task:
    examples = [Example(id=0, question="who?", reference="me")]
    return Task("blind", examples, [], [], {"accuracy": luck, "david": luck})


def _gold(completion):
    needed = {id for ids in completion.columns["evidence"] for id in ids}
    return [id for turn in completion.turns for id in turn.document_ids if id in needed]
