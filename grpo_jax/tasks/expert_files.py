r"""What experts did, from files: published trajectories as structured turns.

Turns in the column `turns`, as `row_of` gives them and `grpo_jax.score_experts` writes
them, are taken as they are. Besides, three ways of writing are read, told apart by the
text (columns `trajectory`, `gold_response` or `reasoning`):

- tags of `rewards/tags.py`, with thoughts, queries, observations and an answer; with
  `\boxed{...}` as David-GRPO's warm start has them;
- the tags of R1-Searcher, `<|begin_of_query|>` and so on;
- ReAct lines: `Thought:`, `Action: search[...]`, `Observation:`, `Action: finish[...]`.

A trajectory is of no use where it has other tags, queries without observations, or no
answer, or where its answer is not right after normalisation.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from grpo_jax.data import sources
from grpo_jax.data.examples import Example
from grpo_jax.retrieval.base import Document
from grpo_jax.rewards import extraction
from grpo_jax.rewards.answer import exact, normalize
from grpo_jax.rewards.tags import BOX, DAVID, SEARCH, Tag, TagSet
from grpo_jax.tasks.corpus import document_id
from grpo_jax.tasks.experts import ExpertTurn
from grpo_jax.tasks.questions import read_question

R1_SEARCHER = TagSet(
    query=Tag("<|begin_of_query|>", "<|end_of_query|>"),
    observation=Tag("<|begin_of_documents|>", "<|end_of_documents|>"),
    answer=Tag("<answer>", "</answer>"),
    document="({number})Title: {title} Text: {text}",
    untitled="({number}){text}",
    searches_in_thoughts=True,
)
_COLUMNS = ("trajectory", "gold_response", "reasoning")
# What looks like a tag in what an expert wrote.
_TAG_LIKE = re.compile(r"</?[A-Za-z_]+>|<\|[a-z_]+\|>")
_LINE = re.compile(r"^(Thought|Action|Observation): ?", re.MULTILINE)
_ACTION = re.compile(r"(search|finish)\[(.*)\]\s*", re.DOTALL)
# Where a document of an observation begins: "(1)", `result 1:`, "Document 1".
_NUMBER = re.compile(r"^[ ]*(?:\(\d+\)|result \d+:|Doc(?:ument)? ?\d+)[ ]?", re.M)
# How the title is set apart from the text; without any of these all of it is text.
_TITLED = (
    re.compile(r"Title: (?P<title>.*?) Text:(?P<text>.*)", re.DOTALL),
    re.compile(r"\(title: \"(?P<title>.*?)\"\)(?P<text>.*)", re.DOTALL | re.IGNORECASE),
    re.compile(r'"(?P<title>[^\n]*)"\n(?P<text>.*)', re.DOTALL),
    re.compile(r"(?P<title>[^\n]*?\S)   (?P<text>.*)", re.DOTALL),
)


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """A question, the answers that are right, and what an expert did."""

    question: str
    golds: tuple[str, ...]
    turns: tuple[ExpertTurn, ...]


class Dropped(NamedTuple):
    """Where a trajectory of no use is, and what is wrong: a word or two, and more."""

    where: str
    reason: str
    detail: str


class Experts(NamedTuple):
    """Trajectories that were read, and those that were left out."""

    kept: list[Trajectory]
    dropped: list[Dropped]

    def reasons(self) -> dict[str, int]:
        """Returns how many were dropped for which reason."""
        return dict(collections.Counter(each.reason for each in self.dropped))


class _OfNoUse(Exception):
    """Arguments: the reason and the detail."""


def read_experts(location: str, *, drop: bool) -> Experts:
    """Returns the trajectories of a file.

    Args:
      location: as for `sources.read_rows`.
      drop: leave out what is of no use, instead of refusing the file.

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: a row without a question, an answer or a trajectory; without `drop`,
        also a trajectory of no use.
    """
    experts = Experts([], [])
    for index, row in enumerate(sources.read_rows(location)):
        where = f"{location}, row {index} (from 0)"
        question = read_question(where, row)
        try:
            turns = _turns(where, row)
            if not exact(turns[-1].answer, question.golds):
                said = f"{turns[-1].answer!r:.100} is none of {question.golds!r:.200}"
                raise _OfNoUse("wrong answer", said)
        except _OfNoUse as error:
            dropped = Dropped(where, *error.args)
            if not drop:
                raise ValueError(
                    f"{where}: {dropped.reason}, {dropped.detail}; remove the row, or "
                    "set config.task.drop_bad_experts=true"
                ) from error
            experts.dropped.append(dropped)
            continue
        experts.kept.append(Trajectory(question.text, question.golds, turns))
    return experts


def experts_of(
    location: str, examples: Sequence[Example], *, drop: bool
) -> dict[int, tuple[ExpertTurn, ...]]:
    """Returns what the experts of a file did, by id of the example they answer.

    Args:
      location: as for `sources.read_rows`.
      examples: questions are compared after `normalize`.
      drop: as for `read_experts`.

    Raises:
      FileNotFoundError: nothing is at `location`.
      ValueError: as `read_experts`; or no example has an expert.
    """
    read = read_experts(location, drop=drop)
    turns = {normalize(each.question): each.turns for each in read.kept}
    ids = {each.id: normalize(each.question) for each in examples}
    experts = {id: turns[text] for id, text in ids.items() if text in turns}
    if not experts:
        raise ValueError(
            f"config.task.experts_path is {location}: of its {len(read.kept)} usable "
            f"trajectories none answers one of the {len(examples)} training questions; "
            f"{len(read.dropped)} were dropped"
        )
    return experts


def row_of(
    question: str, golds: Sequence[str], turns: Sequence[ExpertTurn]
) -> dict[str, Any]:
    """Returns the row that says what an expert did; JSON can hold it."""
    return {
        "question": question,
        "golden_answers": list(golds),
        "turns": [dataclasses.asdict(turn) for turn in turns],
    }


def _turns(where: str, row: sources.Row) -> tuple[ExpertTurn, ...]:
    """Returns the turns of a row, of whatever form."""
    if row.get("turns"):
        turns = [
            _native(f"{where}, turn {number}", each)
            for number, each in enumerate(row["turns"])
        ]
        *asking, last = turns
        if last.query or not all(turn.query and not turn.answer for turn in asking):
            raise _OfNoUse("malformed", "all turns but the last ask, the last does not")
        if not last.answer.strip():
            raise _OfNoUse("no answer", f"it ends with {last!r:.80}")
        return tuple(turns)
    texts = [row[column] for column in _COLUMNS if row.get(column)]
    if not texts:
        raise ValueError(
            f"{where} has no trajectory: one of the columns {['turns', *_COLUMNS]} "
            f"must hold it, and there are {sorted(row)}"
        )
    return parse(texts[0])


def _native(where: str, turn: Mapping[str, Any]) -> ExpertTurn:
    """Returns a turn as `row_of` wrote it; what is empty may be left out."""
    try:
        read = ExpertTurn(
            turn.get("thought") or "",
            turn.get("query") or "",
            tuple(
                Document(str(each["id"]), each.get("title") or "", each["text"])
                for each in turn.get("documents") or ()
            ),
            turn.get("answer") or "",
            tuple(map(float, turn.get("log_probs") or ())),
        )
        "".join((read.thought, read.query, read.answer))  # texts, and nothing else
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}, cannot be read ({error!r}): {turn!r:.300}; it needs thought, "
            "query, documents with id, title and text, answer, log_probs"
        ) from error
    bad = [x for x in read.log_probs if not (math.isfinite(x) and x <= 0)]
    if bad:
        raise ValueError(
            f"{where}, has the log_prob {bad[0]}: natural logarithms of probabilities "
            "are finite and at most 0"
        )
    return read


def parse(text: str) -> tuple[ExpertTurn, ...]:
    """Returns the turns of one trajectory; the last one answers."""
    if _LINE.match(text.lstrip()):
        return _parse_lines(text)
    for tags in (DAVID, SEARCH):
        if tags.query.open in text or (tags.answer == BOX and BOX.open in text):
            return _parse_tagged(tags, text)
    return _parse_tagged(R1_SEARCHER, text)


def _parse_tagged(tags: TagSet, text: str) -> tuple[ExpertTurn, ...]:
    parts = tags.split(text)
    texts, names = parts[::2], parts[1::2]
    search, turns = [*tags.query, *tags.observation], []
    thought, said, at = texts[0], "", 0
    while at < len(names):
        _check_written(thought)
        if names[at : at + 4] == search and not texts[at + 2].strip():
            documents = _documents(texts[at + 3])
            query = texts[at + 1].strip()
            turns.append(ExpertTurn(thought.strip(), query, documents))
            thought, at = texts[at + 4], at + 4
        elif names[at] == tags.think.open and not thought.strip():
            thought, at = texts[at + 1], at + 1
        elif names[at] == tags.think.close:
            said, at = texts[at + 1], at + 1
        elif names[at:] == list(tags.answer) and not texts[-1].strip():
            said, at = texts[at + 1], at + 2
        else:
            raise _OfNoUse("malformed", f"{names[at]} after {thought[-80:]!r}")
    _check_written(said)
    answer = extraction.last_box(said) if tags.answer == BOX else said
    if not answer or not answer.strip():
        raise _OfNoUse("no answer", f"it ends with {text[-80:]!r}")
    return (*turns, ExpertTurn(thought.strip(), answer=answer.strip()))


def _parse_lines(text: str) -> tuple[ExpertTurn, ...]:
    parts = _LINE.split(text)
    lines = list(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))
    turns, thought, query = [], "", ""
    for name, said in lines:
        if name == "Thought":
            thought = said
        elif name == "Observation" and query:
            turns.append(ExpertTurn(thought, query, _documents(said)))
            thought, query = "", ""
        elif name == "Action":
            action = _ACTION.fullmatch(said)
            if action is None or not action[2].strip():
                raise _OfNoUse("malformed", f"the action {said!r:.80}")
            if action[1] == "finish":
                return (*turns, ExpertTurn(thought, answer=action[2].strip()))
            query = action[2].strip()
    raise _OfNoUse("no answer", f"it ends with {text[-80:]!r}")


def _check_written(text: str):
    found = _TAG_LIKE.search(text)
    if found:
        raise _OfNoUse("unknown tag", f"{found[0]} in what the expert wrote")


def _documents(observation: str) -> tuple[Document, ...]:
    """Returns what an observation shows; all of it is one where nothing is numbered."""
    pieces = _NUMBER.split(observation.strip())
    shown = []
    for piece in pieces[1:] or pieces:
        if piece.startswith('"Title: '):  # quoted, as in a CSV file
            piece = piece.strip().strip('"').replace('""', '"')
        match = next(filter(None, (each.match(piece) for each in _TITLED)), None)
        title, text = (match["title"], match["text"]) if match else ("", piece)
        title, text = title.strip(), text.strip()
        if title or text:
            shown.append(Document(document_id(title, text), title, text))
    return tuple(shown)
