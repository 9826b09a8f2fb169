"""The study of agents: valid runs, arms that differ as they say, right sums."""

import json

import pytest

from studies import agents, agents_results
from studies.study import Name

ARMS = agents.REGIMES["stops"].arms


@pytest.mark.parametrize(
    "name",
    [f"{regime}/{arm}/0" for regime, arms in agents.arms().items() for arm in arms],
)
def test_every_run_has_a_valid_configuration(name):
    agents.get_config(name).seal()


@pytest.mark.parametrize(
    ("regime", "arm"),
    [(name, arm) for name, regime in agents.REGIMES.items() for arm in regime.arms],
)
def test_arms_differ_in_what_they_say_alone(regime, arm):
    control = agents.get_config(f"{regime}/plain/1")
    config = agents.get_config(f"{regime}/{arm}/1")
    fields = agents.REGIMES[regime].arms
    assert arm == "plain" or fields[arm] != fields["plain"]
    for section in {field.split(".")[0] for field in fields[arm]}:
        setattr(config, section, getattr(control, section))
    assert config == control


def test_the_full_method_is_all_of_its_parts():
    parts = ARMS["experts"] | ARMS["expansion"] | ARMS["recall"]
    assert ARMS["all"] == parts
    assert ARMS["all_budget"].items() > parts.items()


def test_arms_start_from_the_base_of_their_seed():
    assert agents.start(Name("school", "flawless", 2)) is None
    assert str(agents.start(Name("stops", "base", 2))) == "school/flawless/2"
    assert str(agents.start(Name("stops", "all", 2))) == "stops/base/2"
    config = agents.get_config("stops/all/2")
    assert config.policy.path.endswith("stops/base/2/model")
    assert config.warm_start.steps == 0 and config.seed == 2
    assert config.trainer.max_generated_tokens == agents.GENERATED_TOKENS


def test_training_questions_come_once():
    config = agents.get_config("stops/plain/0")
    # Every episode has a query and an answer, of at least 16 tokens together.
    shortest = config.rollout.prompts_per_step * config.rollout.group_size * 16
    steps = agents.GENERATED_TOKENS / shortest
    assert steps * config.rollout.prompts_per_step <= config.task.world.train_questions


def measures(right: float, evidence: float, calls: float) -> dict:
    found = {"pass@1": {"mean": right, "low": 0.0, "high": 1.0}}
    return {
        "sampled": found,
        "greedy": None,
        "evidence_recall_mean": evidence,
        "calls_mean": calls,
    }


def write_run(folder, *, right, evidence, calls, surplus=0.25):
    """Writes a finished run of two steps; two numbers are before and after."""
    (folder / "evaluation").mkdir(parents=True)
    for end, name in enumerate(("before", "after")):
        whole = measures(right[end], evidence[end], calls[end])
        row = whole | {
            "split": "test",
            "step": 2 * end,
            "sampled_tokens_mean": 40.0,
            "episode": {"surplus_call_fraction": surplus} if end else {},
            "by": {"hops": {"1": whole, "2": measures(0.0, 0.5, 1.0)}},
        }
        (folder / f"evaluation/{name}.json").write_text(json.dumps(row))
    steps = [
        {
            "step": step,
            "rollout/generated_tokens": agents.GENERATED_TOKENS / 2,
            "reward/exact_match": right[step - 1],
            "reward/evidence_recall": evidence[step - 1],
            "episode/calls_mean": calls[step - 1],
        }
        for step in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n")
    (folder / "summary.json").write_text(json.dumps({"stopped": "finished"}))


@pytest.fixture
def found(tmp_path):
    """Writes runs of three seeds of three arms."""
    for seed in range(3):
        for arm, gain, calls in (
            ("plain", 0.0, 1.5),
            ("all", 0.25, 3.0 + seed / 2),
            ("all_budget", 0.25, 2.0 + seed / 2),
        ):
            write_run(
                tmp_path / f"stops/{arm}/{seed}",
                right=(0.25, 0.5 + gain),
                evidence=(0.5, 0.5 + gain),
                calls=(1.0, calls),
                surplus=0.0 if arm == "all_budget" else 0.25,
            )
    return tmp_path


def test_arms_are_compared_by_answers_evidence_and_calls(found):
    agents_results.write(found)
    table = (found / "results.md").read_text().splitlines()
    base, plain, full, _ = table[6:10]
    assert base == (
        "| base |  | 25.0 (25.0 to 25.0) |  | 50.0 (50.0 to 50.0) |  | "
        "1.0 (1.0 to 1.0) |  | 0.0 (0.0 to 0.0) | 40.0 (40.0 to 40.0) |"
    )
    assert plain.startswith("| plain | 2 | 50.0 (50.0 to 50.0) |  |")
    assert full == (
        "| all | 2 | 75.0 (75.0 to 75.0) | +25.0 ± 0.0 | 75.0 (75.0 to 75.0) | "
        "+25.0 ± 0.0 | 3.5 (3.0 to 4.0) | +2.0 ± 1.2 | 25.0 (25.0 to 25.0) | "
        "40.0 (40.0 to 40.0) |"
    )
    assert table[11] == (
        "`all_budget` less `all`: right +0.0 ± 0.0, evidence +0.0 ± 0.0, "
        "calls -1.0 ± 0.0, surplus -25.0 ± 0.0, tokens +0.0 ± 0.0."
    )
    assert table[13] == (
        "| arm | right, 1 | right, 2 | evidence, 1 | evidence, 2 | calls, 1 | "
        "calls, 2 |"
    )
    assert table[17] == "| all | 75.0 | 0.0 | 75.0 | 50.0 | 3.5 | 1.0 |"


def test_curves_are_means_of_the_steps_before(found):
    run = agents_results.read(found / "stops/all/0")
    xs, ys = agents_results._by_tokens("calls", run)
    assert xs[-1] == agents.GENERATED_TOKENS / 1000
    assert ys[0] == 1.0 and ys[-1] == 2.0  # of one step, and of both
    agents_results.write(found)
    assert (found / "results.svg").read_text().count("thousand generated tokens") >= 3


def test_nothing_has_ended_yet(tmp_path, capsys):
    agents_results.write(tmp_path)
    assert "there is no table yet" in capsys.readouterr().out
