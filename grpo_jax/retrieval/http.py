"""Documents from a retrieval server, by HTTP."""

import http.client
import json
import math
import random
import ssl
import time
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

from grpo_jax import choices
from grpo_jax.retrieval import corpus
from grpo_jax.retrieval.base import Failure, Found, Hit

# The wait before the first retry; it doubles at each further one, up to the second.
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
# The server did not understand the queries; asking again cannot help.
_REFUSED = (400, 413, 414, 422)
# Worth asking again, besides every status from 500.
_BUSY = (408, 425, 429)


class HttpRetriever:
    """Asks a server, many queries a request, over one connection that is kept open.

    A request that gets no answer, or a status that says to come back, is tried again
    after a growing time. A request that the server does not understand is halved until
    the query is alone that it does not like: one row must not cost the others theirs.
    Whatever else is wrong with an answer is a `Failure` of its queries.
    """

    def __init__(
        self,
        url: str,
        shape: choices.RequestShape,
        *,
        timeout_seconds: float = 10.0,
        retries: int = 3,
        batch: int = 64,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """Does not connect yet; `check` does.

        Args:
          url: of the searches, such as "http://localhost:8000/retrieve".
          shape: what requests and answers look like.
          timeout_seconds: for a whole answer.
          retries: how often a request is made again.
          batch: most queries in a request.
          sleep: waits that many seconds.

        Raises:
          ValueError: `url` is not one of HTTP.
        """
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"{url!r} is no address of a server: write it like "
                "http://localhost:8000/retrieve"
            )
        self._url, self._shape, self._batch = url, shape, batch
        self._timeout_seconds, self._retries = timeout_seconds, retries
        path = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        self._path, self._sleep = path, sleep
        # Jitter keeps the hosts of a run from coming back all at once.
        self._random = random.Random()
        if parts.scheme == "https":
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname,
                parts.port,
                timeout=timeout_seconds,
                context=ssl.create_default_context(),
            )
        else:
            self._connection = http.client.HTTPConnection(
                parts.hostname, parts.port, timeout=timeout_seconds
            )

    @property
    def documents(self) -> None:
        """Only the server knows."""

    def check(self) -> None:
        """Asks one query, so that a run does not start without its server.

        Raises:
          ConnectionError: why there was no answer, and what to do.
        """
        found = self.search(["What is the capital of France?"], 1)[0]
        if isinstance(found, Failure):
            raise ConnectionError(
                f"the retriever does not answer as it should: {found.reason}. Start "
                "the server, or correct config.retrieval.http (url, request_shape, "
                "timeout_seconds)"
            )

    def search(self, queries: Sequence[str], k: int) -> list[Found]:
        """Returns for each query what the server found, in the server's order."""
        found: list[Found] = []
        tries = 1 + self._retries
        for start in range(0, len(queries), self._batch):
            try:
                found += self._ask(queries[start : start + self._batch], k, tries)
            except _Unreachable as error:
                found += [Failure(str(error))] * len(queries[start:][: self._batch])
                # The other batches find the server as it is now, without the waits.
                tries = 1
        return found

    def describe(self) -> dict[str, Any]:
        """Returns the address; what the server searches, it alone knows."""
        return {"kind": "http", "url": self._url, "request_shape": self._shape.value}

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _ask(self, queries: Sequence[str], k: int, tries: int) -> list[Found]:
        body = json.dumps(_request(self._shape, queries, k)).encode()
        try:
            status, answer = self._post_patiently(body, tries)
        except _Unreachable as error:
            raise _Unreachable(f"{self._url}: {error} (after {tries} tries)") from error
        if status in _REFUSED and len(queries) > 1:
            middle = len(queries) // 2
            halves = queries[:middle], queries[middle:]
            return [each for half in halves for each in self._ask(half, k, tries)]
        try:
            if status != 200:
                raise ValueError(f"status {status}, {answer[:200]!r}")
            return _hits(self._shape, answer, len(queries), k)
        except ValueError as error:
            return [Failure(f"{self._url}: {error}")] * len(queries)

    def _post_patiently(self, body: bytes, tries: int) -> tuple[int, bytes]:
        """Returns the status and the body of the first answer that is one."""
        wait, problem = _FIRST_WAIT_SECONDS, ""
        for turn in range(tries):
            if turn:
                self._sleep(wait * self._random.uniform(0.5, 1.0))
                wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
            try:
                status, answer = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if status < 500 and status not in _BUSY:
                return status, answer
            problem = f"status {status}, {answer[:200]!r}"
        raise _Unreachable(problem)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        was_open = self._connection.sock is not None
        try:
            return self._exchange(body)
        except ConnectionError:
            if not was_open:
                raise
        # Servers close a connection that was idle; that is no failure of theirs.
        return self._exchange(body)

    def _exchange(self, body: bytes) -> tuple[int, bytes]:
        end = time.monotonic() + self._timeout_seconds
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        try:
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            return response.status, _read(response, end)
        except BaseException:
            # What is left of this answer must not be read as the next one.
            self._connection.close()
            raise


class _Unreachable(Exception):
    """No answer came, or none but that the server is busy or broken."""


def _read(response: http.client.HTTPResponse, end: float) -> bytes:
    """Returns the whole body, if it is there before `end` of the monotonic clock."""
    announced, pieces, size = response.length, [], 0
    while announced is None or size < announced:
        # As much as is there: the socket's limit is for each piece, and a server can
        # trickle for ever.
        piece = response.read1(1 << 16)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > end:
            raise TimeoutError(f"{size} bytes and no whole answer in time")
    if announced is not None and size < announced:
        raise http.client.IncompleteRead(b"".join(pieces), announced - size)
    # Not the connection: it is free for the next request.
    response.close()
    return b"".join(pieces)


def _request(
    shape: choices.RequestShape, queries: Sequence[str], k: int
) -> dict[str, Any]:
    match shape:
        case choices.RequestShape.SEARCH_R1:
            return {"queries": list(queries), "topk": k, "return_scores": True}
        case choices.RequestShape.DAVID_GRPO:
            # That is how the field is called.
            return {"query": list(queries), "tok_k": k, "return_score": True}


def _hits(
    shape: choices.RequestShape, answer: bytes, count: int, k: int
) -> list[Found]:
    """Returns the hits of each of `count` queries.

    Raises:
      ValueError: says what is wrong with the answer.
    """
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"no JSON ({error}) but {answer[:200]!r}") from error
    match shape:
        case choices.RequestShape.SEARCH_R1:
            pairs = [_result_pairs(each) for each in _list(data, "result", count)]
        case choices.RequestShape.DAVID_GRPO:
            documents = _list(data, "documents", count)
            scores = _list(data, "scores", count)
            pairs = [_zip(*each) for each in zip(documents, scores, strict=True)]
    return [[_hit(*pair) for pair in each[:k]] for each in pairs]


def _list(data: Any, name: str, count: int) -> list[Any]:
    """Returns a field that must be a list with one item a query."""
    values = data.get(name) if isinstance(data, dict) else None
    if not isinstance(values, list):
        raise ValueError(
            f"the answer has no list {name!r}: {json.dumps(data)[:200]}; is "
            "config.retrieval.http.request_shape that of this server?"
        )
    if len(values) != count:
        raise ValueError(f"{len(values)} items in {name!r} for {count} queries")
    return values


def _result_pairs(results: Any) -> list[tuple[Any, Any]]:
    if not isinstance(results, list) or not all(isinstance(x, dict) for x in results):
        raise ValueError(f"results of a query are no list of objects: {results!r:.200}")
    return [(result.get("document"), result.get("score")) for result in results]


def _zip(documents: Any, scores: Any) -> list[tuple[Any, Any]]:
    lists = isinstance(documents, list) and isinstance(scores, list)
    if not lists or len(documents) != len(scores):
        raise ValueError(
            f"documents and scores of a query are no lists of one length: "
            f"{documents!r:.200} and {scores!r:.200}"
        )
    return list(zip(documents, scores, strict=True))


def _hit(document: Any, score: Any) -> Hit:
    if not isinstance(document, dict):
        raise ValueError(f"a document is {document!r:.200}: it must be an object")
    is_number = isinstance(score, int | float) and not isinstance(score, bool)
    if not is_number or not math.isfinite(score):
        raise ValueError(f"the score of a document is {score!r:.200}")
    row = corpus.of_row("a document of the answer", document, corpus.Columns())
    return Hit(row, float(score))
