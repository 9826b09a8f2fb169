"""Multi-hop question answering from files: HotpotQA, 2WikiMultihopQA, MuSiQue, ..."""

from grpo_jax.config import RewardConfig, TaskConfig
from grpo_jax.data import sources
from grpo_jax.data.examples import Example
from grpo_jax.rewards.search import WATCHED, search_rewards
from grpo_jax.rewards.tags import TagSet
from grpo_jax.tasks import rows
from grpo_jax.tasks.base import Task
from grpo_jax.tasks.corpus import documents_of, with_evidence
from grpo_jax.tasks.questions import Question, read_question


def multihop(config: TaskConfig, tags: TagSet, reward: RewardConfig) -> Task:
    """Builds the task from `config`'s files; `questions.py` has the forms of a row.

    Its documents are the pages that rows of all files bring, and evidence is resolved
    against them; of a run that searches another corpus, `environments/evidence.py`
    does it again.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file, a row or `validation_rows` is impossible.
    """
    questions: list[Question] = []

    def read(location: str) -> list[Example]:
        found = read_questions(location)
        questions.extend(found)
        return examples_of(found)

    splits = rows.read_splits(config, read)
    documents = documents_of(questions)
    train, validation, test = (with_evidence(each, documents) for each in splits)
    return Task(
        name="multihop",
        train=train,
        validation=validation,
        test=test,
        rewards=search_rewards(tags, reward.search),
        watched=WATCHED,
        documents=documents,
    )


def read_questions(location: str) -> list[Question]:
    """Returns one question a row.

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a row that cannot be read, with its index.
    """
    return [
        read_question(f"{location}, row {index} (from 0)", row)
        for index, row in enumerate(sources.read_rows(location))
    ]


def examples_of(questions: list[Question]) -> list[Example]:
    """Returns one example a question; its id is the index, its tier the hops.

    Columns: "row_id", "golds", "hops", "type", "level", "gold_titles", and "gold_texts"
    with the text of each of these, "" where the row does not bring it.
    """
    return [
        Example(
            id=index,
            question=each.text,
            reference=each.golds[0],
            tier=each.hops,
            columns={
                "row_id": each.id,
                "golds": each.golds,
                "hops": each.hops,
                "type": each.type,
                "level": each.level,
                "gold_titles": tuple(title for title, _ in each.gold),
                "gold_texts": tuple(text for _, text in each.gold),
            },
        )
        for index, each in enumerate(questions)
    ]
