"""Episodes of search agents, as rewards see them."""

from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rewards.reading import read_query
from grpo_jax.rewards.tags import TagSet, write_observation


def episode(
    tags: TagSet,
    *turns: str,
    shown=(),
    prompt: str = "q",
    reference: str = "gold",
    **columns,
) -> Completion:
    """What these turns leave, if the i-th query is shown the pages of `shown[i]`.

    A page is a title; its id is the same, and its text says nothing of use.
    """
    recorded, text = [], ""
    for at, turn in enumerate(turns):
        query, malformed = read_query(tags, turn)
        pages = shown[at] if query and at < len(shown) else ()
        recorded.append(Turn(turn, query, tuple(pages), malformed))
        text += turn
        if at + 1 < len(turns):
            text += write_observation(tags, [(page, "...") for page in pages])
    turns = tuple(recorded)
    return Completion(prompt, text, reference, 9, True, 0, columns, turns=turns)
