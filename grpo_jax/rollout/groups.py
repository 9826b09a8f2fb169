"""From encoded prompts to groups of completions, and back to text."""

from collections.abc import Sequence

from grpo_jax.data.pipeline import EncodedPrompt
from grpo_jax.data.tokenizer import Tokenizer
from grpo_jax.records import Origin, Trajectories
from grpo_jax.rewards.base import Completion, Turn
from grpo_jax.rollout.texts import Request


def group_requests(
    prompts: Sequence[EncodedPrompt], group_size: int, max_tokens: int = 0
) -> list[Request]:
    """Returns `group_size` requests a prompt, those of one prompt adjacent.

    Args:
      prompts: to be completed.
      group_size: completions of each.
      max_tokens: longest completion; 0 is the sampler's.
    """
    return [
        Request(prompt.tokens, prompt.example.id, sample, max_tokens=max_tokens)
        for prompt in prompts
        for sample in range(group_size)
    ]


def completions(
    trajectories: Trajectories,
    prompts: Sequence[EncodedPrompt],
    tokenizer: Tokenizer,
    max_tokens: int,
    turns: Sequence[tuple[Turn, ...]] = (),
) -> list[Completion]:
    """Returns what the rewards see of each row, in the order of the rows.

    Args:
      trajectories: the rows, those of one prompt adjacent.
      prompts: of the rows.
      tokenizer: reads the tokens.
      max_tokens: the limit that the completions were written under.
      turns: of the episode of each row; () where there were none.
    """
    seen = []
    sampled = (trajectories.origins == Origin.SAMPLED).sum(axis=1)
    group_size = len(trajectories.lengths) // len(prompts)
    for row in range(len(trajectories.lengths)):
        prompt = prompts[row // group_size]
        start = int(trajectories.prompt_lengths[row])
        end = int(trajectories.lengths[row])
        seen.append(
            Completion(
                prompt=prompt.text,
                text=tokenizer.decode(trajectories.tokens[row, start:end].tolist()),
                reference=prompt.example.reference,
                num_tokens=end - start,
                finished=bool(trajectories.finished[row]),
                group=row // group_size,
                columns=prompt.example.columns,
                max_tokens=max_tokens,
                turns=turns[row] if turns else (),
                sampled_tokens=int(sampled[row]),
            )
        )
    return seen
