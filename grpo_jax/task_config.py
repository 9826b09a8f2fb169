"""Where questions come from: `config.task`, and of built-in ones `config.task.NAME`."""

import dataclasses

from grpo_jax import choices
from grpo_jax.sections import Section, at_least, fraction


@dataclasses.dataclass
class ArithmeticConfig(Section):
    """The built-in task: step-by-step arithmetic modulo a number, from a seed."""

    operations: int = 3
    operators: str = "+-"
    modulus: int = 10
    answer: choices.Answer = choices.Answer.LAST
    # Train, validation and test problems are disjoint by construction.
    train_problems: int = 20_000
    validation_problems: int = 256
    test_problems: int = 512
    problems_seed: int = 0
    # Of the worked solutions shown in the warm start, the fraction of steps whose
    # result is replaced by a random digit.
    mistake_fraction: float = 0.35

    def validate(self, path: str):
        """Checks ranges."""
        at_least(path, self, operations=1, modulus=2, train_problems=1)
        at_least(path, self, validation_problems=1, test_problems=1, problems_seed=0)
        fraction(path, self, "mistake_fraction")
        if not self.operators or set(self.operators) - set("+-*"):
            raise ValueError(
                f"{path}.operators is {self.operators!r}: use characters of '+-*'"
            )


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
    # What is wrong with the demonstrations of a warm start. Of hops, after how many
    # they stop and answer with what they just found, though more are left:
    early_stop_fraction: float = 0.0
    # Of those that come to the end, how many look up the answer, too:
    needless_call_fraction: float = 0.0

    def validate(self, path: str):
        """Checks ranges; whether there are enough questions shows in the making."""
        at_least(path, self, entities=64, distractors=0, world_seed=0)
        at_least(path, self, train_questions=1, validation_questions=1)
        at_least(path, self, test_questions=1)
        shares = ("one_hop", "two_hops", "three_hops", "four_hops")
        fraction(path, self, *shares)
        fraction(path, self, "early_stop_fraction", "needless_call_fraction")
        if not any(getattr(self, share) for share in shares):
            raise ValueError(f"{path}.{shares[0]} to {shares[-1]} are all 0: raise one")


@dataclasses.dataclass
class TaskConfig(Section):
    """Where questions and references come from."""

    # "arithmetic", "math", "code", "world", "multihop", or "package.module:function"
    # returning a Task.
    name: str = "arithmetic"
    arithmetic: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    world: WorldConfig = dataclasses.field(default_factory=WorldConfig)
    # How agents of "world" and "multihop" mark thoughts, queries and answers.
    tags: choices.Tags = choices.Tags.SEARCH
    # For "math", "code" and "multihop": JSONL or Parquet files, or
    # "hub:dataset_id[:config]:split". The last detects the format of every row.
    train_path: str = ""
    validation_path: str = ""
    test_path: str = ""
    # Rows held out of `train_path` for validation when `validation_path` is empty.
    validation_rows: int = 0
    question_column: str = "question"
    reference_column: str = "answer"  # for "code": the tests
    # Worked solution, for guidance and warm starts. Empty: none.
    solution_column: str = ""
    # Trajectories of experts, in place of those that the task knows, and whether those
    # of no use (other tags, a wrong answer) are left out; else the first ends the run.
    experts_path: str = ""
    drop_bad_experts: bool = True
    # Whole number that says how hard a row is, for order=tiers. Empty: none.
    tier_column: str = ""
    system_prompt: str = ""
    # Before that, how the chosen tags are used; for a model that was not taught them.
    instructions: bool = False
    # `{question}` is replaced by the question.
    prompt_template: str = "{question}"
    use_chat_template: bool = False
    overlong: choices.Overlong = choices.Overlong.DROP

    def validate(self, path: str):
        """A file task needs a file; a template needs its place for the question."""
        if self.name in ("math", "code", "multihop") and not self.train_path:
            raise ValueError(
                f"{path}.train_path is empty: task {self.name!r} reads a file"
            )
        if "{question}" not in self.prompt_template:
            raise ValueError(
                f"{path}.prompt_template is {self.prompt_template!r}: it must contain "
                "'{question}'"
            )
        at_least(path, self, validation_rows=0)
        if self.instructions and self.tags is choices.Tags.COMPACT:
            raise ValueError(
                f"{path}.instructions is True and {path}.tags is compact, which has "
                f"none: use other tags, or write your own in {path}.system_prompt"
            )
