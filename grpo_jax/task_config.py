"""The parameters of built-in tasks: `config.task.NAME`."""

import dataclasses

from grpo_jax.sections import Section, at_least, fraction


@dataclasses.dataclass
class WorldConfig(Section):
    """The built-in world of search agents: people, towns and firms, from a seed."""

    # Of all splits; five eighths are asked about in training, two in the test.
    entities: int = 640
    # More of them, of whom no question asks and whose names resemble the others'.
    distractors: int = 64
    # Shares of questions by how many documents they need; they are made to add up to 1.
    one_hop: float = 0.2
    two_hops: float = 0.4
    three_hops: float = 0.4
    four_hops: float = 0.0
    train_questions: int = 2000
    validation_questions: int = 128
    test_questions: int = 256
    world_seed: int = 0
    # Experts write what is left of the question before they ask or answer.
    thoughts: bool = True

    def validate(self, path: str):
        """Checks ranges; whether there are enough questions shows in the making."""
        at_least(path, self, entities=64, distractors=0, world_seed=0)
        at_least(path, self, train_questions=1, validation_questions=1)
        at_least(path, self, test_questions=1)
        shares = ("one_hop", "two_hops", "three_hops", "four_hops")
        fraction(path, self, *shares)
        if not any(getattr(self, share) for share in shares):
            raise ValueError(f"{path}.{shares[0]} to {shares[-1]} are all 0: raise one")
