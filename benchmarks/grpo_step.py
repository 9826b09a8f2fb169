"""Whole GRPO steps against TRL and Tunix, and against this machine's matmul rate.

    python -m benchmarks.grpo_step            completions of 128 tokens
    python -m benchmarks.grpo_step --skewed   26 of 4096 tokens end one, 512 at most

8 prompts of 64 tokens, 8 completions each, KL to a reference, one AdamW update,
float32. A step is all of it: sampling, reward, reference, loss, update. The peers'
programs are in benchmarks/peers; each runs alone, before ours.
"""

import contextlib
import pathlib
import tempfile
import time

import jax
import numpy as np

from benchmarks import common
from benchmarks.peers import protocol
from grpo_jax import choices
from grpo_jax import config as c
from grpo_jax.data.pipeline import encode_prompts
from grpo_jax.policy import costs
from grpo_jax.records import Trajectories
from grpo_jax.rewards import scoring
from grpo_jax.rewards.base import Completion
from grpo_jax.rollout import groups, session
from grpo_jax.rollout.sampling import Sampling
from grpo_jax.tasks.base import Example, Task
from grpo_jax.trainer import batch as batches
from grpo_jax.trainer import run as runs
from grpo_jax.trainer.learner import Learner
from grpo_jax.trainer.model import ROLLOUT

PROMPTS, GROUP, PROMPT_TOKENS = 8, 8, 64


def task(_: c.TaskConfig) -> Task:
    """Returns random prompts, with a reward for even tokens."""
    rows = protocol.prompts(0, 512, PROMPT_TOKENS, common.SIZES["vocab_size"])
    examples = [
        Example(index, protocol.to_text(row), "") for index, row in enumerate(rows)
    ]

    def even(completions: list[Completion]) -> list[float]:
        return [protocol.reward(completion.text) for completion in completions]

    return Task("random", examples, [], [], {"accuracy": even})


def config_of(directory: pathlib.Path, completion_tokens: int) -> c.TrainConfig:
    """Returns the configuration of the comparison, not sealed."""
    return c.TrainConfig(
        policy=c.PolicyConfig(
            path=str(directory),
            dtype=choices.Dtype.FLOAT32,
            remat=choices.Remat.DOTS,
        ),
        task=c.TaskConfig(name="benchmarks.grpo_step:task"),
        rollout=c.RolloutConfig(
            prompts_per_step=PROMPTS,
            group_size=GROUP,
            max_prompt_tokens=PROMPT_TOKENS,
            max_completion_tokens=completion_tokens,
        ),
        reward=c.RewardConfig(weights={"accuracy": 1.0}),
        objective=c.ObjectiveConfig(kl_coef=0.04),
    )


class Steps:
    """GRPO steps by the parts that the training loop is made of."""

    def __init__(self, run: runs.Run, workdir: pathlib.Path):
        """Loads the weights."""
        self._run, self._step = run, 0
        examples = list(run.task.train)
        self._prompts = encode_prompts(
            examples, run.model.tokenizer, **run.model.prompt_options
        )
        self._learner = Learner(run, run.model.initial_params(), workdir)
        self.seconds: dict[str, list[float]] = {"rollout": [], "update": [], "all": []}
        self.trajectories: list[Trajectories] = []

    def __call__(self) -> None:
        """Takes one."""
        config, model = self._run.config, self._run.model
        start = time.perf_counter()
        first = self._step * PROMPTS % len(self._prompts)
        self._step += 1
        prompts = self._prompts[first : first + PROMPTS]
        trajectories, _ = session.complete(
            model.rollout_setup(),
            model.rollout_view(self._learner.state.params),
            groups.group_requests(prompts, GROUP),
            sampling=Sampling(1.0),
            key=model.key(ROLLOUT),
            step=self._step,
        )
        sampled = time.perf_counter()
        completions = groups.completions(trajectories, prompts, model.tokenizer)
        rewards = scoring.score(completions, self._run.rewards).totals
        advantages = batches.advantages_of(rewards, config)
        self._learner.learn(trajectories, rewards, advantages)
        end = time.perf_counter()
        self.seconds["rollout"].append(sampled - start)
        self.seconds["update"].append(end - sampled)
        self.seconds["all"].append(end - start)
        self.trajectories.append(trajectories)


def model_flops(run: runs.Run, trajectories: Trajectories) -> float:
    """Returns the model's operations in a step: sampling, reference and update."""
    arch = run.model.arch
    lengths = trajectories.lengths.astype(np.int64)
    prompts = trajectories.prompt_lengths.astype(np.int64)
    scored = lengths - prompts
    prefill = costs.forward_flops(arch, prompts[::GROUP], np.zeros_like(prompts))
    return (
        prefill
        + costs.decode_flops(arch, prompts, lengths)
        + costs.forward_flops(arch, lengths, scored)
        + costs.update_flops(arch, lengths, scored)
    )


def main() -> None:
    """Measures the peers, the machine and us."""
    flags = common.parser(__doc__)
    flags.add_argument("--skewed", action="store_true")
    flags.add_argument("--peer_repeats", type=int, default=5, help="0: ours alone")
    args = flags.parse_args()
    tokens, ends = (512, 26) if args.skewed else (128, 0)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory = common.model_directory(folder, ends)
        options = [f"--model={directory}", f"--repeats={args.peer_repeats}"]
        options += [f"--max_new={tokens}", f"--eos_ids={ends}"]
        programs = {
            "trl": ("torch", "trl_step.py"),
            "tunix": ("tunix", "tunix_step.py"),
        }
        peers = {
            name: common.peer(*program, *options) if args.peer_repeats else None
            for name, program in programs.items()
        }
        run = stack.enter_context(
            contextlib.closing(runs.build(config_of(directory, tokens).seal()))
        )
        if not ends:  # nothing ends a completion: no token has this id
            run.model.tokenizer.eos_ids = (common.SIZES["vocab_size"],)
        stack.enter_context(jax.set_mesh(run.model.mesh))
        steps = Steps(run, folder)
        warmups, rates = 5 if args.skewed else 2, []
        for _ in range(warmups + args.repeats):
            rates.append(common.matmul_rate(repeats=1))
            steps()
    seconds = {name: values[warmups:] for name, values in steps.seconds.items()}
    trained = steps.trajectories[warmups:]
    useful = [int((t.lengths - t.prompt_lengths).sum()) for t in trained]
    work = [
        model_flops(run, t) / s / rate
        for t, s, rate in zip(trained, seconds["all"], rates[warmups:], strict=True)
    ]
    rate = sum(useful) / sum(seconds["all"])
    result = {
        "seconds": seconds,
        "completion_tokens": useful,
        "completion_tokens_per_second": rate,
        "model_teraflops": model_flops(run, trained[0]) / 1e12,
        "matmul_gigaflops_per_second": [rate / 1e9 for rate in rates],
        "fraction_of_matmul_rate": work,
        "peers": peers,
        # By tokens, since lengths are drawn: steps are not equally long.
        "speedup": {
            name: rate * sum(each["seconds"]) / sum(each["completion_tokens"])
            for name, each in peers.items()
            if each
        },
    }
    common.write(args.results, f"grpo_step{'_skewed' * args.skewed}", result)


if __name__ == "__main__":
    main()
