"""A run whose documents a server has: slow, answering nonsense, dying, coming back."""

import http.server
import json
import shutil
import threading
import time

import pytest

from configs import david_grpo
from grpo_jax import choices
from grpo_jax.config import CheckpointConfig
from grpo_jax.trainer import loop
from tests.test_agent_run import without_times

pytestmark = pytest.mark.system

SHAPES = choices.RequestShape
SLOW, BROKEN, NONSENSE = "slow", "broken", "nonsense"


class Server(http.server.ThreadingHTTPServer):
    """Has one document, which it finds for any query, in both shapes.

    Attributes:
      troubles: what happens to requests, in turn; None is a good answer.
      dead: whether it closes every connection without an answer, asked each time.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.troubles, self.dead, self.count = [None], lambda: False, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/retrieve"

    def trouble(self):
        self.count += 1
        return self.troubles[self.count % len(self.troubles)]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.dead():
            return
        trouble = self.server.trouble()
        if trouble == SLOW:
            time.sleep(0.05)
        body = b"{" if trouble == NONSENSE else json.dumps(answer(request)).encode()
        self.send_response(500 if trouble == BROKEN else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def answer(request):
    document = {"id": "7", "contents": '"Ada Fox"\nhome Rook'}
    if "queries" in request:
        found = [{"document": document, "score": 1.0}]
        return {"result": [found for _ in request["queries"]]}
    return {
        "documents": [[document] for _ in request["query"]],
        "scores": [[1.0] for _ in request["query"]],
    }


@pytest.fixture(scope="module")
def server():
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def good(server):
    """The server, of which a test may make anything."""
    server.count = 0
    yield server
    server.troubles, server.dead = [None], lambda: False


def config_of(server, steps, shape=SHAPES.SEARCH_R1):
    config = david_grpo.miniature()
    world, http_ = config.task.world, config.retrieval.http
    world.entities, world.train_questions, world.thoughts = 64, 32, False
    world.validation_questions = world.test_questions = 4
    config.retrieval.kind = choices.Retriever.HTTP
    config.retrieval.cache_entries = 0  # what was asked before is asked again
    http_.url, http_.request_shape, http_.batch, http_.retries = server.url, shape, 1, 0
    config.warm_start.steps, config.warm_start.batch_size = 120, 8
    config.warm_start.demonstrations = 32
    config.rollout.prompts_per_step = config.rollout.group_size = 4
    config.rollout.max_completion_tokens, config.episode.turn_tokens = 64, 16
    config.evaluation.every_steps, config.evaluation.greedy = 0, False
    config.evaluation.test_problems, config.evaluation.samples = 1, 4
    config.checkpoint = CheckpointConfig(every_steps=50)
    config.trainer.steps = steps
    return config.seal()


@pytest.fixture(scope="module")
def started(server, tmp_path_factory):
    """A workdir whose warm start is done, so that its policy asks."""
    workdir = tmp_path_factory.mktemp("started")
    loop.train(config_of(server, 0), workdir)
    return workdir


@pytest.fixture(scope="module")
def whole(server, started, tmp_path_factory):
    """The metrics of a run without trouble."""
    workdir = begin(started, tmp_path_factory.mktemp("runs"))
    loop.train(config_of(server, 2), workdir)
    return metrics(workdir)


def begin(started, folder):
    """Copies a workdir to go on in, also with another configuration."""
    ignore = shutil.ignore_patterns("config.json")
    return shutil.copytree(started, folder / "run", ignore=ignore)


def metrics(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_what_fails_gets_no_reward_and_the_run_goes_on(good, started, tmp_path):
    good.troubles = [None, SLOW, BROKEN, None, SLOW, NONSENSE]
    workdir = begin(started, tmp_path)
    summary = loop.train(config_of(good, 2), workdir)
    assert (summary["steps"], summary["stopped"]) == (2, "finished")
    failed = 0
    for line in metrics(workdir):
        path = workdir / "rollouts" / f"{line['step']:06d}.jsonl"
        rows = list(map(json.loads, path.read_text().splitlines()))
        without = [row for row in rows if any(turn["failed"] for turn in row["turns"])]
        assert all(row["reward"] is None for row in without)
        assert all(row["reward"] is not None for row in rows if row not in without)
        assert line["episode/failed_fraction"] == len(without) / len(rows)
        assert line["retrieval/failures"] == len(without)
        failed += len(without)
    assert failed


def test_a_server_that_is_down_stops_the_start(good, tmp_path):
    good.dead = lambda: True
    config = config_of(good, 2)
    with pytest.raises(ConnectionError, match=r"does not answer as it should: .*Start"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_server_that_dies_stops_the_run_which_goes_on_later(
    good, started, whole, tmp_path
):
    workdir = begin(started, tmp_path)
    config = config_of(good, 2, SHAPES.DAVID_GRPO)
    lines = workdir / "metrics.jsonl"
    good.dead = lambda: lines.exists() and lines.stat().st_size > 0
    message = r"failed for all \d+ queries of a rollout.*the same command goes on from"
    with pytest.raises(ConnectionError, match=message):
        loop.train(config, workdir)
    assert (workdir / "checkpoints" / "1").is_dir()  # although none was due
    assert [line["step"] for line in metrics(workdir)] == [1]
    good.dead = lambda: False
    loop.train(config, workdir)
    assert without_times(metrics(workdir)) == without_times(whole)
