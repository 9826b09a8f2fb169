"""A built-in world to search in: people, towns and firms, each with one document.

Every entity has two facts, each of which names an entity of another kind:

    Ada Fox: home Old Rook; job Zed Inn        (a document: title, then text)
    guild of home of Ada Fox?                  (a question of two hops)

A question of h hops needs h documents: that of the entity it names, that of the one
this leads to, and so on; what the last of them says is the answer. Facts are functions
and names are unique, so there is one answer. Names share words (Ada Fox, Ada Lin; Old
Rook, Old Mara), and a name is mentioned in more documents than its own; the name and
the fact asked for are together in one document only.

Splits share no entity: the facts of one lead to entities of the same split, so nothing
that a policy could remember from training helps it in the test. Documents of all splits
are in one corpus.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from grpo_jax.config import RewardConfig
from grpo_jax.data.examples import Example, Segment
from grpo_jax.data.world_words import FACTS, NAMES
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards.search import WATCHED, search_rewards
from grpo_jax.rewards.tags import TagSet
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.experts import ExpertTurn, segments
from grpo_jax.tasks.world_turns import (
    ask,
    demonstration,
    phrase,
    state,
    write_document,
)

# Kinds of every four entities in a row: half of them are people.
_KINDS = ("person", "town", "person", "firm")
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Entity:
    """Somebody or something with a document of its own.

    Attributes:
      document: what is written of it; its title is the name.
      facts: name of a fact to the index of the entity that it names.
    """

    document: Document
    facts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class World:
    """Entities, and which of them questions of a split ask about and visit."""

    entities: Sequence[Entity]
    members: dict[str, range]


@dataclasses.dataclass(frozen=True)
class Path:
    """A question: facts asked one after another, and the entities that they visit.

    Attributes:
      facts: h of them, the first asked of the entity that the question names.
      visited: h + 1 indices of entities, all different; the last is the answer.
    """

    facts: tuple[str, ...]
    visited: tuple[int, ...]


def world(config: WorldConfig, tags: TagSet, reward: RewardConfig) -> Task:
    """Builds the task: the same config gives the same one on every machine.

    Raises:
      ValueError: more entities than names, or more questions than there are.
    """
    made = build(config)
    paths = {split: _draw_paths(config, made, split) for split in SPLITS}
    train, validation, test = (
        [_example(made, id, path) for id, path in enumerate(paths[split])]
        for split in SPLITS
    )
    experts = {
        id: expert(made, path, thoughts=config.thoughts)
        for id, path in enumerate(paths["train"])
    }

    def demonstrate(
        examples: Sequence[Example], rng: np.random.Generator
    ) -> list[list[Segment]]:
        names = _names_to_show(made)
        shown = []
        for path in [paths["train"][example.id] for example in examples]:
            start = _name(made, path.visited[0])
            turns = demonstration(config, path.facts, start, names, rng)
            shown.append(segments(tags, turns))
        return shown

    return Task(
        name="world",
        train=train,
        validation=validation,
        test=test,
        rewards=search_rewards(tags, reward.search),
        watched=WATCHED,
        demonstrate=demonstrate,
        documents=[entity.document for entity in made.entities],
        experts=experts,
    )


def build(config: WorldConfig) -> World:
    """Names the entities of every split and draws their facts.

    Raises:
      ValueError: there are more entities than names.
    """
    rng = np.random.default_rng([config.world_seed, 0])
    asked, total = config.entities, config.entities + config.distractors
    bounds = [asked * eighths // 8 for eighths in (0, 5, 6, 8)]
    members = {
        split: range(*pair)
        for split, pair in zip(SPLITS, itertools.pairwise(bounds), strict=True)
    }
    kinds = [_KINDS[index % len(_KINDS)] for index in range(total)]
    names = _names(kinds, asked, rng)
    entities = []
    for split in (*SPLITS, ""):  # last the distractors, which may name anybody
        named = members.get(split, range(total))
        of_kind = {kind: [at for at in named if kinds[at] == kind] for kind in FACTS}
        for index in members.get(split, range(asked, total)):
            facts = {
                fact: int(rng.choice(of_kind[kind]))
                for fact, kind in FACTS[kinds[index]].items()
            }
            known = {fact: names[to] for fact, to in facts.items()}
            entities.append(Entity(write_document(index, names[index], known), facts))
    return World(entities, members)


def write_question(world: World, path: Path) -> str:
    """Returns `guild of home of Ada Fox?`."""
    return f"{phrase(path.facts, _name(world, path.visited[0]))}?"


def expert(world: World, path: Path, *, thoughts: bool) -> tuple[ExpertTurn, ...]:
    """Returns the shortest way to the answer: one query a hop, for one document each.

    A query is a name and a fact, `Ada Fox home`. Of all documents, titles included, one
    has all of its words.

    Args:
      world: who there is.
      path: the question.
      thoughts: write down before every turn what is left of the question, which is the
        answer in the last.
    """
    turns = []
    for hop in range(len(path.facts)):
        document = world.entities[path.visited[hop]].document
        turns.append(ask(path.facts[hop:], document, thoughts=thoughts))
    return (*turns, state(_name(world, path.visited[-1]), thoughts=thoughts))


def _names(kinds: Sequence[str], asked: int, rng: np.random.Generator) -> list[str]:
    """Returns a name for each entity; those from `asked` on resemble others if any do.

    To resemble is to share a word with one of the first `asked`.
    """
    supply: dict[str, Iterator[str]] = {}
    for kind in NAMES:
        every = _every_name(kind)
        wanted, first = kinds.count(kind), kinds[:asked].count(kind)
        if wanted > len(every):
            raise ValueError(
                f"config.task.world.entities + distractors is {len(kinds)}, of which "
                f"{wanted} are of kind {kind!r}: there are {len(every)} names; use at "
                f"most {len(every) * len(_KINDS) // _KINDS.count(kind)} entities"
            )
        order = [every[at] for at in rng.permutation(len(every))]
        known = {word for name in order[:first] for word in name.split()}
        rest = sorted(order[first:], key=lambda name: known.isdisjoint(name.split()))
        supply[kind] = iter([*order[:first], *rest])
    return [next(supply[kind]) for kind in kinds]


def _names_to_show(world: World) -> dict[str, list[str]]:
    """Returns the names of every kind that nobody has who is asked about elsewhere."""
    elsewhere = {
        _name(world, at) for split in SPLITS[1:] for at in world.members[split]
    }
    return {
        kind: [name for name in _every_name(kind) if name not in elsewhere]
        for kind in FACTS
    }


def _every_name(kind: str) -> list[str]:
    return list(map(" ".join, itertools.product(*NAMES[kind])))


def _draw_paths(config: WorldConfig, world: World, split: str) -> list[Path]:
    """Draws the questions of a split, without repetition, in random order."""
    wanted = {
        "train": config.train_questions,
        "validation": config.validation_questions,
        "test": config.test_questions,
    }[split]
    shares = [config.one_hop, config.two_hops, config.three_hops, config.four_hops]
    bounds = np.rint(wanted * np.cumsum(shares) / sum(shares)).astype(int)
    rng = np.random.default_rng([config.world_seed, 1 + SPLITS.index(split)])
    drawn = []
    for hops, count in enumerate(np.diff(bounds, prepend=0), start=1):
        paths = list(_paths(world, split, hops)) if count else []
        if len(paths) < count:
            raise ValueError(
                f"config.task.world.{split}_questions is {wanted}, of which {count} "
                f"need {hops} documents: there are {len(paths)}; ask for fewer, raise "
                "config.task.world.entities, or change the shares of hops"
            )
        drawn += [paths[at] for at in rng.permutation(len(paths))[:count]]
    return [drawn[at] for at in rng.permutation(len(drawn))]


def _paths(world: World, split: str, hops: int) -> Iterator[Path]:
    """Yields every question of a split that visits `hops` + 1 different entities."""
    for start in world.members[split]:
        for choices in itertools.product((0, 1), repeat=hops):
            visited, facts = [start], []
            for choice in choices:
                fact, to = list(world.entities[visited[-1]].facts.items())[choice]
                facts.append(fact)
                visited.append(to)
            if len(set(visited)) == len(visited):
                yield Path(tuple(facts), tuple(visited))


def _example(world: World, id: int, path: Path) -> Example:
    answer = _name(world, path.visited[-1])
    gold = [world.entities[at].document for at in path.visited[:-1]]
    return Example(
        id=id,
        question=write_question(world, path),
        reference=answer,
        tier=len(gold),
        columns={
            "golds": (answer,),
            "hops": len(gold),
            "gold_titles": tuple(each.title for each in gold),
            "evidence": tuple((each.id,) for each in gold),
        },
    )


def _name(world: World, index: int) -> str:
    return world.entities[index].document.title
