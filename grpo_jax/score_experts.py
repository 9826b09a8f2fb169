r"""Writes what experts did with the log-probs of a model, for experts.loss=importance.

    python -m grpo_jax.score_experts --config=configs/david_grpo.py --model=DIR \
        --output=experts.jsonl

The experts are those that the configuration's task knows, and DIR is a model directory
with the run's tokenizer: of the model that wrote them, or of one that could have. The
run then takes them with --config.task.experts_path=experts.jsonl. Its tags, tokenizer,
prompts and sampling temperature must be those that were given here.
"""

import json
import pathlib

from absl import flags

from grpo_jax import doors
from grpo_jax.reporting.files import write_atomically
from grpo_jax.trainer import expert_scores

_CONFIG = doors.define_config()
_MODEL = flags.DEFINE_string(
    "model", None, "Directory or hub id of the model.", required=True
)
_OUTPUT = flags.DEFINE_string("output", None, "The file to write.", required=True)


def main(_: list[str]) -> None:
    """Scores the experts and writes the file."""
    output = pathlib.Path(_OUTPUT.value)
    if output.exists():
        raise ValueError(f"{output} exists: remove it or choose another --output")
    config = doors.sealed(_CONFIG, show=False)
    rows, left_out = expert_scores.score_experts(config, _MODEL.value)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_atomically(output, "".join(lines))
    print(f"{len(rows)} experts are in {output}")
    if left_out:
        print(f"{left_out} exceed the limits of config.rollout and are left out")


if __name__ == "__main__":
    doors.run(main)
