"""Both shapes, over a real connection, and everything that can go wrong with one."""

import collections
import http.server
import json
import socket
import threading
import time

import pytest

from grpo_jax import choices
from grpo_jax.retrieval.base import Document, Failure, Hit
from grpo_jax.retrieval.http import HttpRetriever

SEARCH_R1, DAVID = choices.RequestShape.SEARCH_R1, choices.RequestShape.DAVID_GRPO
DROP, HALF = object(), object()


def document(query, rank):
    return {"id": f"{query}{rank}", "contents": f'"{query}"\ntext {rank}'}


def answer_of(path, request):
    """What a good server of either shape says."""
    if "queries" in request:
        assert path == "/retrieve?of=wiki"
        assert request["return_scores"] is True
        return {
            "result": [
                [
                    {"document": document(query, rank), "score": 1 / (rank + 1)}
                    for rank in range(request["topk"])
                ]
                for query in request["queries"]
            ]
        }
    assert request["return_score"] is True
    ranks = range(request["tok_k"])
    return {
        "documents": [[document(q, rank) for rank in ranks] for q in request["query"]],
        "scores": [[1 / (rank + 1) for rank in ranks] for _ in request["query"]],
    }


class Server(http.server.ThreadingHTTPServer):
    """Answers as it is told: a function of the request, or one entry of `script`.

    An entry is a status, a body, DROP (closes), HALF (closes inside the body), or a
    number of seconds to wait with a good answer.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests = collections.deque(), []
        self.connections, self.always, self.refuses = 0, None, None
        self.keeps_alive = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/retrieve?of=wiki"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.server.connections += 1

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server.requests.append(request)
        told = server.script.popleft() if server.script else server.always
        if told is DROP:
            self.close_connection = True
            return
        if server.refuses and server.refuses in str(request):
            told = 422
        if isinstance(told, float):
            time.sleep(told)
        status = told if isinstance(told, int) else 200
        body = json.dumps(answer_of(self.path, request)).encode()
        if isinstance(told, bytes):
            body = told
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if told is HALF else body)
        self.close_connection = told is HALF or not server.keeps_alive

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def sleeps():
    return []


@pytest.fixture
def retriever_of(sleeps):
    made = []

    def make(url, shape=SEARCH_R1, **changes):
        made.append(HttpRetriever(url, shape, sleep=sleeps.append, **changes))
        return made[-1]

    yield make
    for each in made:
        each.close()


def hits(query, k):
    return [
        Hit(Document(f"{query}{rank}", query, f"text {rank}"), 1 / (rank + 1))
        for rank in range(k)
    ]


def reason(found):
    assert isinstance(found, Failure), found
    return found.reason


@pytest.mark.parametrize("shape", [SEARCH_R1, DAVID])
def test_both_shapes_give_the_same_hits(server, retriever_of, shape):
    found = retriever_of(server.url, shape).search(["a", "Küçük"], 2)
    assert found == [hits("a", 2), hits("Küçük", 2)]


def test_the_fields_of_a_request(server, retriever_of):
    retriever_of(server.url, SEARCH_R1).search(["a"], 2)
    retriever_of(server.url, DAVID).search(["a"], 2)
    assert server.requests == [
        {"queries": ["a"], "topk": 2, "return_scores": True},
        {"query": ["a"], "tok_k": 2, "return_score": True},
    ]


def test_batches_are_split_and_share_a_connection(server, retriever_of):
    queries = [f"q{i}" for i in range(7)]
    retriever = retriever_of(server.url, batch=3)
    assert retriever.search(queries, 1) == [hits(query, 1) for query in queries]
    assert retriever.search(queries[:1], 1) == [hits("q0", 1)]
    assert [len(request["queries"]) for request in server.requests] == [3, 3, 1, 1]
    assert server.connections == 1


def test_more_hits_than_asked_for_are_cut(server, retriever_of):
    good = answer_of("/retrieve?of=wiki", {"queries": ["a"], "topk": 5} | RETURN)
    server.always = json.dumps(good).encode()
    assert retriever_of(server.url).search(["a"], 2) == [hits("a", 2)]


RETURN = {"return_scores": True}


@pytest.mark.parametrize("trouble", [503, 500, 429, DROP, HALF])
def test_a_server_that_fails_once_is_asked_again(server, retriever_of, sleeps, trouble):
    server.script.append(trouble)
    assert retriever_of(server.url).search(["a"], 1) == [hits("a", 1)]
    assert len(sleeps) == 1
    assert 0.25 <= sleeps[0] <= 0.5


def test_the_waits_double_and_end_with_the_retries(server, retriever_of, sleeps):
    server.always = 503
    found = retriever_of(server.url, retries=3).search(["a", "b"], 1)
    assert len(server.requests) == 4
    bounds = [(0.25, 0.5), (0.5, 1.0), (1.0, 2.0)]
    assert len(sleeps) == len(bounds)
    assert all(low <= s <= high for s, (low, high) in zip(sleeps, bounds, strict=True))
    assert found[0] == found[1]
    assert f"{server.url}: status 503" in reason(found[0])
    assert "(after 4 tries)" in reason(found[0])


def test_after_a_batch_without_an_answer_the_others_are_tried_once(
    server, retriever_of, sleeps
):
    server.script += [503, 503, 503, 200]
    found = retriever_of(server.url, batch=1, retries=1).search(["a", "b", "c"], 1)
    assert [isinstance(each, Failure) for each in found] == [True, True, False]
    assert len(sleeps) == 1


def test_a_connection_that_the_server_closed_while_idle_is_no_failure(
    server, retriever_of, sleeps
):
    retriever = retriever_of(server.url, retries=0)
    assert retriever.search(["a"], 1) == [hits("a", 1)]
    server.script.append(DROP)
    assert retriever.search(["b"], 1) == [hits("b", 1)]
    assert (server.connections, sleeps) == (2, [])
    server.keeps_alive = False
    assert [retriever.search(["c"], 1) for _ in range(2)] == [[hits("c", 1)]] * 2


def test_a_slow_server_is_not_waited_for(server, retriever_of):
    server.script.append(0.4)
    retriever = retriever_of(server.url, timeout_seconds=0.1, retries=0)
    assert "TimeoutError" in reason(retriever.search(["a"], 1)[0])
    # What that answer still sends is not taken for the next one.
    assert retriever.search(["b"], 1) == [hits("b", 1)]


def test_a_trickle_is_not_waited_for(retriever_of):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                try:
                    for _ in range(100):
                        connection.sendall(b" ")
                        time.sleep(0.02)
                except OSError:
                    pass

        thread = threading.Thread(target=trickle)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        retriever = retriever_of(url, timeout_seconds=0.1, retries=0)
        found = retriever.search(["a"], 1)[0]
        thread.join()
    assert "no whole answer in time" in reason(found)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "no JSON .* but b'<html>'"),
        (b"\xff", "no JSON"),
        (b"[]", "no list 'result': .*request_shape that of this server"),
        (b'{"result": {}}', "no list 'result'"),
        (b'{"result": []}', "0 items in 'result' for 1 queries"),
        (b'{"result": [[], []]}', "2 items in 'result' for 1 queries"),
        (b'{"result": ["a"]}', "no list of objects: 'a'"),
        (b'{"result": [["a"]]}', "no list of objects"),
        (b'{"result": [[{"score": 1}]]}', "a document is None"),
        (b'{"result": [[{"document": {"text": "a"}}]]}', "score of a document is None"),
        (b'{"result": [[{"document": {"text": "a"}, "score": NaN}]]}', "score .* nan"),
        (b'{"result": [[{"document": {"id": 1}, "score": 1}]]}', "no column 'text'"),
        (b'{"result": [[{"document": {"text": []}, "score": 1}]]}', "is .., a list"),
    ],
)
def test_malformed_answers_are_failures_and_not_asked_again(
    server, retriever_of, body, message
):
    server.always = body
    found = retriever_of(server.url).search(["a"], 1)
    assert pytest.raises(ValueError, _raise, reason(found[0])).match(message)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"documents": [[]]}', "no list 'scores'"),
        (b'{"documents": [[{"text": "a"}]], "scores": [[]]}', "no lists of one length"),
        (b'{"documents": [{"text": "a"}], "scores": [1]}', "no lists of one length"),
    ],
)
def test_malformed_answers_of_the_other_shape(server, retriever_of, body, message):
    server.always = body
    found = retriever_of(server.url, DAVID).search(["a"], 1)
    assert pytest.raises(ValueError, _raise, reason(found[0])).match(message)


def _raise(text):
    raise ValueError(text)


def test_documents_with_title_and_text_and_no_id(server, retriever_of):
    row = {"document": {"title": "T", "text": "x"}, "score": 2}
    server.always = json.dumps({"result": [[row, row]]}).encode()
    first, second = retriever_of(server.url).search(["a"], 2)[0]
    assert (first.document.title, first.document.text, first.score) == ("T", "x", 2.0)
    assert first == second
    assert first.document.id


def test_a_query_that_the_server_refuses_does_not_cost_the_others(server, retriever_of):
    server.refuses = "bad"
    queries = ["a", "b", "bad", "c", "d"]
    found = retriever_of(server.url).search(queries, 1)
    assert "status 422" in reason(found.pop(2))
    queries.remove("bad")
    assert found == [hits(query, 1) for query in queries]


@pytest.mark.parametrize("status", [301, 403, 404])
def test_other_statuses_are_failures_at_once(server, retriever_of, sleeps, status):
    server.always = status
    found = retriever_of(server.url).search(["a", "b"], 1)
    assert f"status {status}" in reason(found[0])
    assert (len(server.requests), sleeps) == (1, [])


def test_check(server, retriever_of):
    retriever_of(server.url).check()
    server.always = b'{"documents": []}'
    with pytest.raises(ConnectionError, match="no list 'result'.*Start the server, or"):
        retriever_of(server.url).check()


def test_check_of_a_server_that_is_not_there(retriever_of, sleeps):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/retrieve"
    with pytest.raises(
        ConnectionError, match=f"{url}: ConnectionRefusedError.*3 tries"
    ):
        retriever_of(url, retries=2).check()
    assert len(sleeps) == 2


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x/", "http://", "http:///a"])
def test_addresses_that_are_none(url):
    with pytest.raises(ValueError, match="is no address of a server: write it like"):
        HttpRetriever(url, SEARCH_R1)


def test_describe(retriever_of):
    retriever = retriever_of("https://localhost:1/x", DAVID)
    assert retriever.describe() == {
        "kind": "http",
        "url": "https://localhost:1/x",
        "request_shape": "david_grpo",
    }
