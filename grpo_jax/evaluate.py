r"""Evaluates a policy on benchmarks or held-out problems: pass@k, intervals, lengths.

    python -m grpo_jax.evaluate --workdir=runs/mine --benchmarks=aime24 \
        --benchmarks=math500=math500.jsonl
    python -m grpo_jax.evaluate --config=configs/gsm8k.py --workdir=runs/base \
        --config.policy.path=DIR --benchmarks=math500 --train_data=train.jsonl

The first takes a run's newest checkpoint; the second the weights a configuration starts
from. Without --benchmarks the task's own problems are solved. Writes
WORKDIR/evaluation/NAME.json, and every completion beside it. The same command goes on
where it was stopped. docs/evaluation.md describes benchmarks and files.
"""

import contextlib

import jax
from absl import flags

from grpo_jax import doors
from grpo_jax.reporting import terminal
from grpo_jax.tasks import benchmarks
from grpo_jax.trainer import evaluation, logbook, policies, suite
from grpo_jax.trainer import model as models
from grpo_jax.trainer.journal import Journal

_POLICY = doors.define_policy()
_BENCHMARKS = flags.DEFINE_multi_string(
    "benchmarks",
    [],
    f"One of {', '.join(benchmarks.BENCHMARKS)} from the hub, NAME=FILE, or label=FILE "
    "for problems of your own; give it again for each.",
)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["validation", "test"], "Without --benchmarks: what to solve."
)
_NAME = flags.DEFINE_string(
    "name", "", "Of the result; of a benchmark what follows its label. Default: step."
)
_TRAIN_DATA = flags.DEFINE_multi_string(
    "train_data",
    [],
    "A file the policy was trained on: problems that share 8 words in a row with it "
    "are named, and accuracy is also given without them.",
)
_OPTIONS = {
    "samples": flags.DEFINE_integer(
        "samples", 0, "Completions of each problem; 0: as recommended.", lower_bound=0
    ),
    "max_completion_tokens": flags.DEFINE_integer(
        "max_completion_tokens", 0, "0: as recommended.", lower_bound=0
    ),
    "temperature": flags.DEFINE_float(
        "temperature", -1.0, "0 is greedy; -1: as recommended.", lower_bound=-1.0
    ),
    "top_p": flags.DEFINE_float(
        "top_p", 0.0, "1 is off; 0: as recommended.", lower_bound=0.0
    ),
    "problems": flags.DEFINE_integer(
        "problems", 0, "So many from the first; 0: all.", lower_bound=0
    ),
    "seed": flags.DEFINE_integer(
        "seed",
        0,
        "Another one gives other completions.",
        lower_bound=0,
        upper_bound=2**31 - 1,
    ),
    "training_prompt": flags.DEFINE_bool(
        "training_prompt", False, "Ask benchmarks as config.task asks."
    ),
}


def main(_: list[str]) -> None:
    """Evaluates, writes and prints."""
    config, workdir, checkpoint = _POLICY.values()
    options = suite.Options(**{name: flag.value for name, flag in _OPTIONS.items()})
    chosen = benchmarks.parse_all(_BENCHMARKS.value)
    if chosen:
        model = models.build_model(config)
        jobs = [suite.benchmark_job(model, each, options) for each in chosen]
    else:
        jobs = [suite.split_job(config, _SPLIT.value, options)]
        model = jobs[0].run.model
    with contextlib.ExitStack() as stack:
        for job in jobs:
            stack.enter_context(contextlib.closing(job.run))
        stack.enter_context(jax.set_mesh(model.mesh))
        # Before weights are read: a file that is missing is found now.
        flagged = [suite.contaminated(job.prompts, _TRAIN_DATA.value) for job in jobs]
        params, step = policies.load_params(model, workdir, checkpoint)
        weights, view = policies.digest(params), model.rollout_view(params)
        del params  # the sampler reads its own copy
        (workdir / "evaluation").mkdir(parents=True, exist_ok=True)
        for job, ids in zip(jobs, flagged, strict=True):
            name = _NAME.value or f"{step:06d}"
            if chosen or not _NAME.value:
                name = f"{job.split}_{name}"
            path = workdir / "evaluation" / f"{name}.json"
            settings = suite.settings(job, weights, options.seed)
            journal = Journal(path, settings)
            result, samples = evaluation.evaluate(
                job.run,
                view,
                job.prompts,
                name=name,
                split=job.split,
                step=step,
                seed=options.seed,
                journal=journal,
            )
            result["settings"] = settings
            if _TRAIN_DATA.value:
                result["contamination"] = suite.contamination_of(
                    samples, ids, _TRAIN_DATA.value, config.evaluation.confidence
                )
            logbook.write_evaluation(workdir, result, samples)
            journal.discard()
            terminal.print_evaluation(result)
            print(path)


if __name__ == "__main__":
    doors.run(main)
