"""One answer for all hosts: what the first process was told, the others are told.

Every process of a run keeps the same rows and takes the same decisions. A tool may
answer two processes differently, if only by failing once: so one of them asks.
"""

import json
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from grpo_jax.environments.base import Reply


def is_first() -> bool:
    """Returns whether this process asks for all."""
    return jax.process_index() == 0


def replies_of_first(asked: Callable[[], Sequence[Reply]]) -> Sequence[Reply]:
    """Returns the replies of the first process, in every process.

    All processes must call it, at the same point between their programs.

    Args:
      asked: waits for the replies; called in the first process only.

    Raises:
      RuntimeError: asking raised in the first process, which raises that itself.
    """
    if jax.process_count() == 1:
        return asked()
    if not is_first():
        told = _broadcast(b"")
        if not told:
            raise RuntimeError("the environment failed in the first process")
        replies = [Reply(**fields) for fields in json.loads(told)]
        return [
            each._replace(document_ids=tuple(each.document_ids)) for each in replies
        ]
    try:
        replies = asked()
    except BaseException:
        _broadcast(b"")
        raise
    _broadcast(json.dumps([each._asdict() for each in replies]).encode())
    return replies


def _broadcast(said: bytes) -> bytes:
    """Returns what the first process says; what the others say is not heard."""
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(said))))
    sent = np.zeros(count, np.uint8)
    if is_first():
        sent[:] = np.frombuffer(said, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes()
