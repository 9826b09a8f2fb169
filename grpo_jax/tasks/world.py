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
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards.search import WATCHED, search_rewards
from grpo_jax.rewards.tags import TagSet
from grpo_jax.task_config import WorldConfig
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.experts import ExpertTurn, segments

# Kind of entity to its facts, and the kind that each of them names. No fact names an
# entity of its own kind: a document that mentions a name never states the same facts.
FACTS = {
    "person": {"home": "town", "job": "firm"},
    "firm": {"boss": "person", "seat": "town"},
    "town": {"mayor": "person", "guild": "firm"},
}
# Kinds of every four entities in a row: half of them are people.
_KINDS = ("person", "town", "person", "firm")
SPLITS = ("train", "validation", "test")
_WORDS = {
    "person": (
        "Ada Ben Bo Cal Cy Dee Dot Eli Eve Fay Finn Gil Gus Hal Ida Jo Kit Lea Max Nan "
        "Ola Pat Quin Ray Sue Tom Una Val Wes Xia Yan Zoe",
        "Ash Bell Bray Cobb Cole Dorn Dunn Eads Ford Fox Gant Hill Holt Ives Judd Kane "
        "Kerr Lin Lowe Moss Nash Orr Penn Rudd Shaw Tate Urie Voss Webb York Zane Gray",
    ),
    "town": (
        "Old New East West High Low Fair Long",
        "Birk Brim Cove Crag Dale Dell Elm Firth Gate Glen Heath Isle Knoll Lund Mara "
        "Mere Ness Peel Pike Quay Ridge Rook Sand Stow Strand Tarn Thorn Vale Wharf "
        "Wick Wold Yew",
    ),
    "firm": (
        "Amp Apex Bolt Brio Coil Core Delta Dyne Echo Ergo Flux Forge Gear Hive Iris "
        "Jade Kilo Luma Mint Nova Onyx Pulse Quark Ruby Sol Tango Ultra Vega Wave Xeno "
        "Yolk Zed",
        "Co Inn Lab Mill Bank Yard Farm Dock",
    ),
}


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
        del rng  # experts are the same every time
        return [segments(tags, experts[example.id]) for example in examples]

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
            text = "; ".join(f"{fact} {names[to]}" for fact, to in facts.items())
            entities.append(Entity(Document(str(index), names[index], text), facts))
    return World(entities, members)


def write_question(world: World, path: Path) -> str:
    """Returns `guild of home of Ada Fox?`."""
    return f"{_phrase(path.facts, _name(world, path.visited[0]))}?"


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
    for hop, fact in enumerate(path.facts):
        document = world.entities[path.visited[hop]].document
        left = _phrase(path.facts[hop:], document.title) if thoughts else ""
        turns.append(ExpertTurn(left, f"{document.title} {fact}", (document,)))
    answer = _name(world, path.visited[-1])
    turns.append(ExpertTurn(answer if thoughts else "", answer=answer))
    return tuple(turns)


def _names(kinds: Sequence[str], asked: int, rng: np.random.Generator) -> list[str]:
    """Returns a name for each entity; those from `asked` on resemble others if any do.

    To resemble is to share a word with one of the first `asked`.
    """
    supply: dict[str, Iterator[str]] = {}
    for kind, words in _WORDS.items():
        every = list(map(" ".join, itertools.product(*map(str.split, words))))
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


def _phrase(facts: Sequence[str], name: str) -> str:
    """Returns `guild of home of Ada Fox`: the fact to ask first comes last."""
    return " of ".join([*reversed(facts), name])
