r"""How a search agent marks what it thinks, asks, is shown and answers: tags as data.

An episode is a sequence of turns with an observation after each but the last:

    SEARCH   <think>T</think>\n<search>q</search>   (any number of times, then)
             <think>T</think>\n<answer>a</answer>
    COMPACT  the same without line breaks
    DAVID    T\n<begin_search>q</end_search>   (any number of times, then)
             T\n</think>\n\n...\boxed{a}

In the first two, thoughts end before a query and may be left out. In DAVID the
thoughts go on from the first turn to the last, and searches happen in them; only the
first turn may begin with `<think>`. `reading.py` says what counts where a policy writes
something else.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

from grpo_jax import choices
from grpo_jax.config import TaskConfig
from grpo_jax.rewards import extraction

NO_DOCUMENT = "No document was found."


class Tag(NamedTuple):
    """What stands before something and what stands after it."""

    open: str
    close: str

    def around(self, text: str) -> str:
        """Returns `text` between the two."""
        return f"{self.open}{text}{self.close}"


BOX = Tag("\\boxed{", "}")
_THINK = Tag(extraction.THINK_OPEN, extraction.THINK_CLOSE)


@dataclasses.dataclass(frozen=True)
class TagSet:
    """The marks of an agent, and how what it is shown is written.

    Attributes:
      query: around what it asks; generation stops behind the closing one.
      observation: around what it is shown.
      answer: around its answer; may be `BOX`.
      document: one document, with places for {number} from 1, {title} and {text}.
      untitled: one without a title.
      gap: between the thoughts of a turn and what follows them.
      margin: before and after an observation.
      padding: within an observation, before and after what it says.
      searches_in_thoughts: the thoughts are one, from the first turn to the last.
      instructions: what a prompt says of all this, before the question; "" if nothing.
      think: around its thoughts.
    """

    query: Tag
    observation: Tag
    answer: Tag
    document: str
    untitled: str
    gap: str = "\n"
    margin: str = "\n\n"
    padding: str = ""
    searches_in_thoughts: bool = False
    instructions: str = ""
    think: Tag = _THINK

    @property
    def names(self) -> tuple[str, ...]:
        """Every tag; a box is none, since braces are in any text."""
        tags = (*self.think, *self.query, *self.observation)
        return tags if self.answer == BOX else (*tags, *self.answer)

    def split(self, text: str) -> list[str]:
        """Returns text, tag, text, tag, ..., text: what stands between the tags."""
        return re.split(f"({'|'.join(map(re.escape, self.names))})", text)


_SEARCH_INSTRUCTIONS = """\
Answer the question. Think between <think> and </think> first, and again whenever you \
have learned something new. If you lack a fact, ask for it as <search>your \
query</search>: you are then shown documents between <information> and </information>. \
Search as often as you need. As soon as you know the answer, write it as \
<answer>the answer</answer>, as short as it can be, with no explanation."""

_DAVID_INSTRUCTIONS = """\
You are an assistant that thinks before it answers, and that can search.

1. When you are not sure of a fact, search for it while you think, as often as it takes.
2. To search, write <begin_search>your query</end_search>. What is found follows \
between <search_result> and </search_result>; go on thinking from there. Never ask the \
same query twice.
3. Thoughts stand between <think> and </think>, and all searches in them. Then state \
the answer once, as short as it can be, as \\boxed{the answer}."""

SEARCH = TagSet(
    query=Tag("<search>", "</search>"),
    observation=Tag("<information>", "</information>"),
    answer=Tag("<answer>", "</answer>"),
    document='Document {number} (title: "{title}") {text}',
    untitled="Document {number} {text}",
    instructions=_SEARCH_INSTRUCTIONS,
)
COMPACT = dataclasses.replace(
    SEARCH,
    document="{title}: {text}",
    untitled="{text}",
    gap="",
    margin="",
    instructions="",
)
DAVID = TagSet(
    query=Tag("<begin_search>", "</end_search>"),
    observation=Tag("<search_result>", "</search_result>"),
    answer=BOX,
    document='result {number}: "{title}"\n{text}',
    untitled="result {number}: {text}",
    padding=" ",
    searches_in_thoughts=True,
    instructions=_DAVID_INSTRUCTIONS,
)


def tag_set(choice: choices.Tags) -> TagSet:
    """Returns the tags that a configuration names."""
    match choice:
        case choices.Tags.SEARCH:
            return SEARCH
        case choices.Tags.COMPACT:
            return COMPACT
        case choices.Tags.DAVID:
            return DAVID


def system_prompt(task: TaskConfig) -> str:
    """Returns what prompts say before the question: how tags are used, if asked for."""
    instructions = tag_set(task.tags).instructions if task.instructions else ""
    return "\n\n".join(filter(None, (instructions, task.system_prompt)))


def write_turn(tags: TagSet, thought: str, *, query: str = "", answer: str = "") -> str:
    """Returns a turn that asks `query` or else states `answer`."""
    done = tags.query.around(query) if query else tags.answer.around(answer)
    if tags.searches_in_thoughts:
        lead = f"{thought}{tags.gap}" if thought else ""
        end = "" if query else f"{tags.think.close}{2 * tags.gap}"
        return f"{lead}{end}{done}"
    return f"{tags.think.around(thought)}{tags.gap}{done}" if thought else done


def answer_opening(tags: TagSet) -> str:
    """Returns what stands before the answer of a turn without thoughts."""
    return write_turn(tags, "", answer="\0").partition("\0")[0]


def write_observation(tags: TagSet, documents: Sequence[tuple[str, str]]) -> str:
    """Returns what the policy reads of documents, pairs of title and text, best first.

    Tags in a document lose their angle brackets, so that none can end an observation.
    """
    shown = [
        (tags.document if title else tags.untitled).format(
            number=number,
            title=_without_tags(tags, title),
            text=_without_tags(tags, text),
        )
        for number, (title, text) in enumerate(documents, start=1)
    ]
    return write_notice(tags, "\n".join(shown) or NO_DOCUMENT)


def write_notice(tags: TagSet, notice: str) -> str:
    """Returns an observation that says `notice`, such as that no search is left."""
    padded = f"{tags.padding}{notice}{tags.padding}"
    return f"{tags.margin}{tags.observation.around(padded)}{tags.margin}"


def _without_tags(tags: TagSet, text: str) -> str:
    parts = tags.split(text)
    parts[1::2] = [f"[{tag.strip('<>')}]" for tag in parts[1::2]]
    return "".join(parts)
