"""Rows of multi-hop question sets, in any of the forms in which they are published.

The form is told from a row's columns:

    context + supporting_facts    HotpotQA, 2WikiMultihopQA: lists of pairs, or a
                                  dictionary of lists as on the Hugging Face hub
    paragraphs                    MuSiQue (`paragraph_text`), and normalised rows
                                  (`text`, with `supporting_titles` if known)
    prompt + reward_model         David-GRPO's Parquet files
    evidence_documents            David-GRPO's synthetic questions
    question + answer             anything else: Bamboogle, evaluation sets
                                  (also `golden_answers`, `Question` and `Answer`)
"""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from grpo_jax.data.sources import Row

# Between answers that are all right, in David-GRPO's files.
_ANSWERS_SPLIT = "<ans_split>"
# The line of its prompts behind which the question stands.
_QUESTION_BELOW = "question below:"


class Paragraph(NamedTuple):
    """A page or part of one that a row brings, and whether its question needs it."""

    title: str
    text: str
    gold: bool = False


@dataclasses.dataclass(frozen=True)
class Question:
    """What a row says.

    Attributes:
      id: the row's own; "" if it has none.
      text: the question.
      golds: answers that are right, the first as the row states it.
      gold: title and text of the pages it needs, each once; in the order of its
        reasoning where the row tells. The text is "" where the row does not bring it;
        () where it does not say what is needed.
      paragraphs: pages that the row brings, gold ones and others.
      hops: pages needed one after another; 0 if not known.
      type: what the row calls it, such as "bridge"; "" if nothing.
      level: how hard the row calls it; "" if nothing.
    """

    id: str
    text: str
    golds: tuple[str, ...]
    gold: tuple[tuple[str, str], ...] = ()
    paragraphs: tuple[Paragraph, ...] = ()
    hops: int = 0
    type: str = ""
    level: str = ""


def read_question(where: str, row: Row) -> Question:
    """Returns what a row says.

    Raises:
      ValueError: a row in none of the forms above, or with a hole; names the row.
    """
    try:
        question = _read(row)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where} cannot be read ({error!r}): {row!r:.300}; its columns are "
            f"{sorted(row)}; grpo_jax/tasks/questions.py lists the forms"
        ) from error
    if not question.text.strip() or not all(map(str.strip, question.golds)):
        raise ValueError(
            f"{where} has the question {question.text!r:.200} and the answers "
            f"{question.golds!r:.200}: fill them in or remove the row"
        )
    return question


def _read(row: Row) -> Question:
    match row:
        case {"prompt": [_, *_], "reward_model": {"ground_truth": _}}:
            return _david(row)
        case {"evidence_documents": [*documents]}:
            paragraphs = [_paragraph(each, gold=True) for each in documents]
            return _question(row, paragraphs, paragraphs)
        case {"context": context, "supporting_facts": facts}:
            return _hotpotqa(row, _parsed(context), _titles(_parsed(facts)))
        case {"paragraphs": [*_]}:
            return _with_paragraphs(row)
    facts = _parsed(row.get("supporting_facts"))
    titles = _titles(facts) if facts else row.get("supporting_titles") or ()
    return _question(row, (), _pages(titles, ()))


def _hotpotqa(row: Row, context: Any, titles: Sequence[str]) -> Question:
    if isinstance(context, dict):
        texts = context.get("sentences") or context["content"]
        context = zip(context["title"], texts, strict=True)
    paragraphs = [
        Paragraph(title.strip(), "".join(sentences).strip(), title in titles)
        for title, sentences in context
    ]
    return _question(row, paragraphs, _pages(titles, paragraphs))


def _with_paragraphs(row: Row) -> Question:
    """MuSiQue and normalised rows: paragraphs that say whether they are needed."""
    if row.get("answerable") is False:
        raise ValueError("it is marked as not answerable: remove it")
    titles = row.get("supporting_titles") or ()
    paragraphs = [
        _paragraph(each, each.get("is_supporting", each["title"] in titles))
        for each in row["paragraphs"]
    ]
    steps = row.get("question_decomposition") or row.get("decomposition") or ()
    order = [step.get("paragraph_support_idx") for step in steps]
    if order and None not in order:
        # Two steps may need two parts of one page.
        return _question(row, paragraphs, [paragraphs[at] for at in order])
    gold = _pages(titles, paragraphs) or [each for each in paragraphs if each.gold]
    return _question(row, paragraphs, gold)


def _pages(titles: Sequence[str], paragraphs: Sequence[Paragraph]) -> list[Paragraph]:
    """Returns the pages of these titles; without a text where there is none."""
    texts = {title: text for title, text, _ in paragraphs}
    titles = [title.strip() for title in titles]
    return [Paragraph(title, texts.get(title, ""), True) for title in titles]


def _david(row: Row) -> Question:
    content = row["prompt"][-1]["content"]
    _, below, text = content.rpartition(_QUESTION_BELOW)
    # The question ends the prompt; without the line above it, it is the last one.
    text = text if below else content.strip().rpartition("\n")[2]
    answers = row["reward_model"]["ground_truth"]
    if isinstance(answers, str):
        answers = answers.split(_ANSWERS_SPLIT)
    titles = _titles(row.get("supporting_facts") or [])
    stated = {**row, "question": text.strip(), "answer": answers}
    return _question(stated, (), _pages(titles, ()))


def _question(
    row: Row, paragraphs: Sequence[Paragraph], gold: Sequence[Paragraph]
) -> Question:
    text = row.get("question") or row["Question"]
    pages = tuple(dict.fromkeys((title, text) for title, text, _ in gold))
    extra = row.get("extra_info") or {}
    hops = row.get("hop_nums") or extra.get("hop_nums") or len(pages)
    return Question(
        id=str(row.get("id") or row.get("_id") or ""),
        text=text.strip(),
        golds=_golds(row),
        gold=pages,
        paragraphs=tuple(paragraphs),
        hops=int(hops),
        type=row.get("type") or "",
        level=row.get("level") or "",
    )


def _golds(row: Row) -> tuple[str, ...]:
    """Returns the answer and its aliases, each once."""
    for column in ("answer", "golden_answers", "answers", "Answer"):
        if column in row:
            answers = row[column] if isinstance(row[column], list) else [row[column]]
            answers = [*answers, *(row.get("answer_aliases") or ())]
            if None in answers or not answers:
                raise ValueError(f"column {column!r} holds no answer")
            return tuple(dict.fromkeys(map(str, answers)))
    raise KeyError("answer")


def _paragraph(page: dict[str, Any], gold: bool) -> Paragraph:
    for column in ("paragraph_text", "text", "content"):
        if column in page:
            return Paragraph(page["title"].strip(), page[column].strip(), bool(gold))
    raise KeyError("text")


def _titles(facts: Any) -> list[str]:
    """Returns the titles of supporting facts, [title, sentence] pairs or two lists."""
    return list(facts["title"]) if isinstance(facts, dict) else [x[0] for x in facts]


def _parsed(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
