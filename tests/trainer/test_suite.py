"""Benchmarks asked of a small model: settings, resumption, contamination."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.episode_config import EpisodeConfig
from grpo_jax.retrieval_config import RetrievalConfig
from grpo_jax.rewards import scoring
from grpo_jax.task_config import ArithmeticConfig
from grpo_jax.tasks import benchmarks
from grpo_jax.trainer import evaluation, logbook, policies, suite
from grpo_jax.trainer import model as models
from grpo_jax.trainer.journal import Journal
from grpo_jax.trainer.run import Run
from tests import helpers

pytestmark = pytest.mark.system

WORDS = "one two three four five six seven eight nine ten"


@pytest.fixture(scope="module")
def model():
    config = c.TrainConfig(
        policy=c.PolicyConfig(
            preset="miniature", tokenizer="characters", dtype=choices.Dtype.FLOAT32
        ),
        task=c.TaskConfig(system_prompt="Be brief.", prompt_template="Q: {question}"),
        rollout=c.RolloutConfig(
            prompts_per_step=8,
            group_size=4,
            max_prompt_tokens=12,
            max_completion_tokens=12,
            chunk_steps=4,
            max_rows=8,
        ),
    ).seal()
    built = models.build_model(config)
    return dataclasses.replace(built, mesh=helpers.one_device_mesh())


@pytest.fixture(scope="module")
def params(model):
    params = model.initial_params()
    params["embedding"]["table"] = 8 * params["embedding"]["table"]
    return params


@pytest.fixture
def benchmark(tmp_path):
    rows = [{"problem": f"{i}+1?", "answer": f"0{i + 1}"} for i in range(4)]
    rows[1]["problem"] = f"Add {WORDS}!"
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return benchmarks.parse(f"aime24={path}")


def job_of(model, benchmark, **options):
    options = {"samples": 2, "max_completion_tokens": 8} | options
    return suite.benchmark_job(model, benchmark, suite.Options(**options))


def test_a_benchmark_is_asked_and_sampled_in_its_own_way(model, benchmark, capsys):
    job = suite.benchmark_job(model, benchmark, suite.Options())
    config, limit = job.run.config, model.arch.max_context_tokens
    longest = max(len(prompt.tokens) for prompt in job.prompts)
    assert job.split == "aime24" and job.run.rewards == {}
    assert (config.evaluation.samples, config.evaluation.greedy) == (64, False)
    assert dataclasses.asdict(config.evaluation.sampling) == {
        "temperature": 0.6,
        "top_k": 0,
        "top_p": 0.95,
        "min_p": 0.0,
    }
    assert job.prompts[0].text == benchmarks.PROMPT.replace("{question}", "0+1?")
    assert job.prompts[0].example.reference == "1"
    setup = job.run.model.rollout_setup(config.evaluation.max_completion_tokens)
    assert setup.max_prompt_tokens == longest > 12
    assert setup.columns == limit and setup.max_rows == 8
    said = capsys.readouterr().out
    assert "rows.jsonl holds 4 problems and aime24 has 30" in said
    assert f"completions have up to {limit - longest} tokens, not 32768" in said


def test_what_a_user_changes(model, benchmark):
    job = job_of(
        model, benchmark, temperature=0.0, top_p=1.0, problems=3, training_prompt=True
    )
    changed = job.run.config.evaluation
    assert (changed.samples, changed.max_completion_tokens) == (2, 8)
    assert (changed.sampling.temperature, changed.sampling.top_p) == (0.0, 1.0)
    assert [prompt.text for prompt in job.prompts][0] == "Be brief.\n\nQ: 0+1?"
    assert len(job.prompts) == 3
    with pytest.raises(ValueError, match=r"longest completion \(99999\) exceed"):
        too_long = job_of(model, benchmark, max_completion_tokens=99999)
        too_long.run.model.rollout_setup(99999)


def test_a_prompt_that_fills_the_context(model, tmp_path):
    row = {"problem": "1" * model.arch.max_context_tokens, "answer": "1"}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="1 prompts of own fill the model's context"):
        job_of(model, benchmarks.parse(f"own={tmp_path / 'x.jsonl'}"))


def test_a_split_takes_the_same_options(model, capsys):
    config = dataclasses.replace(
        model.config, task=c.TaskConfig(arithmetic=ArithmeticConfig(test_problems=8))
    )
    options = suite.Options(samples=3, temperature=0.5, problems=2)
    job = suite.split_job(config.seal(), "test", options)
    with contextlib.closing(job.run):
        changed = job.run.config.evaluation
        assert (changed.samples, changed.sampling.temperature) == (3, 0.5)
        assert changed.sampling.top_p == config.evaluation.sampling.top_p
        assert len(job.prompts) == 2 and changed.greedy


def test_settings_tell_evaluations_apart(model, benchmark, params):
    weights = policies.digest(params)
    base = suite.settings(job_of(model, benchmark), weights, 0)
    assert base == suite.settings(job_of(model, benchmark), weights, 0)
    json.dumps(base)
    for changed, name in (
        (suite.settings(job_of(model, benchmark, problems=2), weights, 0), "prompts"),
        (suite.settings(job_of(model, benchmark, samples=3), weights, 0), "samples"),
        (suite.settings(job_of(model, benchmark, top_p=0.5), weights, 0), "top_p"),
        (suite.settings(job_of(model, benchmark), "other", 0), "weights"),
        (suite.settings(job_of(model, benchmark), weights, 1), "seed"),
    ):
        assert {key for key in base if base[key] != changed[key]} == {name}


def test_weights_are_told_apart(params):
    same = jax.tree.map(lambda x: x + 0, params)
    moved = jax.tree.map(lambda x: x * 1.0001, params)
    assert policies.digest(same) == policies.digest(params) != policies.digest(moved)


def test_stopped_anywhere_it_gives_the_same_numbers(
    model, benchmark, params, tmp_path, monkeypatch
):
    # One problem a part, so that there is something to lose.
    monkeypatch.setattr("grpo_jax.trainer.journal._PART_ROWS", 1)
    job = job_of(model, benchmark, samples=8)
    folder = tmp_path / "evaluation"
    folder.mkdir()

    def evaluate(name, stop_after=99):
        calls = []

        def decode(*arguments, **more):
            calls.append(None)
            if len(calls) > stop_after:
                raise KeyboardInterrupt
            return original(*arguments, **more)

        original = Run.write
        journal = Journal(folder / f"{name}.json", settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Run, "write", decode)
            result, graded = evaluation.evaluate(
                job.run, view, job.prompts, name="x", split="s", step=0, journal=journal
            )
        return result, graded.completions, len(calls)

    with contextlib.closing(job.run), jax.set_mesh(job.run.model.mesh):
        view = helpers.view_of(model.arch, params)
        settings = suite.settings(job, policies.digest(params), 0)
        whole = evaluate("whole")
        with pytest.raises(KeyboardInterrupt):
            evaluate("stopped", stop_after=2)
        assert len((folder / "stopped.jsonl.partial").read_text().split("\n")) == 18
        resumed = evaluate("stopped")
        assert (whole[2], resumed[2]) == (4, 2)
        assert resumed[:2] == whole[:2]
        # Parts change nothing either, and another seed everything.
        alone = evaluation.grade(
            job.run, view, job.prompts, evaluation.Sampling.of(settings_of(job)), 8
        )
        assert alone.completions == whole[1]
        other = evaluation.grade(
            job.run,
            view,
            job.prompts,
            evaluation.Sampling.of(settings_of(job)),
            8,
            seed=1,
        )
        assert [x.text for x in other.completions] != [x.text for x in whole[1]]


def settings_of(job):
    return job.run.config.evaluation.sampling


def test_contamination(model, benchmark, tmp_path):
    train = tmp_path / "train.jsonl"
    rows = [{"question": f"Now {WORDS.upper()}, please"}, {"question": "0+2?"}]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = job_of(model, benchmark)
    ids = suite.contaminated(job.prompts, [str(train)])
    assert ids == [1] and suite.contaminated(job.prompts, []) == []
    accuracy = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, np.nan]])
    table = scoring.RewardTable((), np.zeros((8, 0)), np.zeros(8))
    graded = evaluation.Graded(job.prompts, [], table, accuracy)
    found = suite.contamination_of(graded, ids, [str(train)], 0.95)
    assert found["clean"]["mean"] == 0.5 and found["problems"] == [1]
    assert (found["ngram"], found["train_data"]) == (8, [str(train)])


def test_rows_say_which_problem_they_solve(model, benchmark, params, tmp_path):
    job = job_of(model, benchmark, problems=2, max_completion_tokens=4)
    (tmp_path / "evaluation").mkdir()
    with contextlib.closing(job.run), jax.set_mesh(job.run.model.mesh):
        view = helpers.view_of(model.arch, params)
        result, graded = evaluation.evaluate(
            job.run, view, job.prompts, name="x", split="aime24", step=0
        )
    path = logbook.write_evaluation(tmp_path, result, graded)
    rows = [json.loads(x) for x in path.with_suffix(".jsonl").read_text().splitlines()]
    assert [(row["problem"], row["sample"]) for row in rows] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    assert rows[0]["question"] == "0+1?" and rows[0]["accuracy"] in (0.0, 1.0)
    written = json.loads(path.read_text())
    assert written["max_completion_tokens"] == 4
    assert written["accuracy_by_length"][-1]["tokens"] == 4
    assert written["tokens_mean"]["all"] == written["completion_tokens_mean"]


@pytest.fixture
def agent(model):
    """The model of a run that searches."""
    config = dataclasses.replace(
        model.config,
        policy=dataclasses.replace(model.config.policy, tokenizer="search-characters"),
        task=c.TaskConfig(name="world", tags=choices.Tags.COMPACT),
        episode=EpisodeConfig(environment="search", max_calls=2),
        retrieval=RetrievalConfig(top_k=1),
        rollout=dataclasses.replace(
            model.config.rollout, max_prompt_tokens=40, max_completion_tokens=60
        ),
    )
    built = models.build_model(config.seal())
    return dataclasses.replace(built, mesh=helpers.one_device_mesh())


QUESTIONS = [
    {
        "question": f"mayor of {town}?",
        "answer": mayor,
        "supporting_facts": [[town, 0]],
        "context": [[town, [f"mayor {mayor}"]], ["Zed Inn", ["boss Ada Fox"]]],
        "level": level,
    }
    for town, mayor, level in (("Old Rook", "Bo Lin", "easy"), ("Mara", "Cy", "hard"))
]


@pytest.fixture
def searched(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return benchmarks.parse(f"hotpotqa={path}")


def test_a_benchmark_to_search_for_runs_in_the_runs_episodes(agent, searched):
    job = suite.benchmark_job(agent, searched, suite.Options(samples=2))
    config = job.run.config
    assert config.evaluation.samples == 2
    assert config.evaluation.sampling.temperature == 0.6
    assert config.evaluation.max_completion_tokens == 60
    assert job.prompts[0].text == "mayor of Old Rook?"
    environment = job.run.environment
    assert environment is not None
    (reply,) = environment.step([0], ["mayor Mara"])
    assert reply.document_ids == job.prompts[1].example.columns["evidence"][0]
    params = agent.initial_params()
    with contextlib.closing(job.run), jax.set_mesh(job.run.model.mesh):
        view = helpers.view_of(agent.arch, params)
        result, graded = evaluation.evaluate(
            job.run, view, job.prompts, name="x", split="hotpotqa", step=0
        )
        assert suite.settings(job, "w", 0)["episode"]["max_calls"] == 2
    assert all(each.turns for each in graded.completions)
    assert result["by"].keys() == {"hops", "level"}
    assert result["by"]["level"]["hard"]["problems"] == 1
    assert result["watched"].keys() == {"answer_f1", "evidence_recall"}
    assert result["episode"]["calls_mean"] == result["calls_mean"]


def test_evidence_is_not_known_in_another_corpus(agent, searched, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "1", "title": "Mara", "text": "mayor Cy"}\n')
    retrieval = RetrievalConfig(top_k=1, corpus_path=str(corpus))
    config = dataclasses.replace(agent.config, retrieval=retrieval).seal()
    named = dataclasses.replace(agent, config=config)
    job = suite.benchmark_job(named, searched, suite.Options())
    with contextlib.closing(job.run):
        assert job.run.environment is not None
        (reply,) = job.run.environment.step([0], ["Mara"])
        assert reply.document_ids == ("1",)
        assert all("evidence" not in each.example.columns for each in job.prompts)


def test_questions_need_something_to_search(agent, tmp_path):
    path = tmp_path / "plain.jsonl"
    path.write_text('{"Question": "who?", "Answer": "Bo"}\n')
    plain = benchmarks.parse(f"bamboogle={path}")
    with pytest.raises(ValueError, match="nothing to search: task 'bamboogle' brings"):
        suite.benchmark_job(agent, plain, suite.Options())
    config = dataclasses.replace(agent.config, episode=EpisodeConfig()).seal()
    alone = dataclasses.replace(agent, config=config)
    job = suite.benchmark_job(alone, plain, suite.Options())
    assert job.run.environment is None and job.prompts[0].text == "who?"
