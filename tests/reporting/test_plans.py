"""A plan in the terminal."""

import io

from rich.console import Console

from grpo_jax.reporting import plans

STATE = {"parameters": 2e9, "optimizer": 4e9}
PLAN = {
    "device": "H200\x1b[31m",
    "mesh": {"data": 2, "fsdp": 4, "tensor": 1},
    "parameters": 494_032_768,
    "dtype": "bfloat16",
    "remat": "full",
    "moments": {
        "rollout": STATE | {"KV of rows": 1.25e9},
        "loss": STATE | {"logits chunk": 0.5e9},
    },
    "limit_bytes": 105.75e9,
    "rows": 256,
    "rows_of_a_step": 512,
    "largest_rows": 4096,
    "micro_batch_tokens": 16_384,
    "tokens_of_an_update": 200_000,
    "largest_micro_batch_tokens": 65_536,
    "steps": 1000,
    "refills": False,
    "efficiency": {"rollout": 0.5, "update": 0.4},
    "speed": {
        "prompt_tokens": 128,
        "completion_tokens": 384,
        "rollout_tokens_per_second": 102_400.0,
        "update_tokens_per_second": 51_200.0,
        "rollout_hours": 1.5,
        "update_hours": 0.5,
    },
    "price_per_hour": 24.0,
    "problem": "",
}


def printed(**changes) -> list[str]:
    stream = io.StringIO()
    plans.print_plan(PLAN | changes, console=Console(file=stream, width=100))
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_parts_their_sum_and_the_limit():
    lines = printed()
    assert lines[0].startswith("494M parameters, bfloat16, remat full, on 8 x H200")
    assert "data=2, fsdp=4, tensor=1" in lines[0]
    assert "GB on each device rollout loss" in lines
    assert "optimizer 4.00 4.00" in lines
    assert "KV of rows 1.25" in lines and "logits chunk 0.50" in lines
    assert "sum 7.25 6.50" in lines and "usable 105.75 105.75" in lines


def test_small_models_are_shown_in_megabytes():
    lines = printed(moments={"rollout": {"parameters": 544e3}}, limit_bytes=5e6)
    assert "MB on each device rollout" in lines
    assert "parameters 0.54" in lines and "usable 5.00" in lines


def test_the_batches_name_their_fields():
    lines = printed()
    fields = "config.rollout.max_rows", "config.trainer.micro_batch_tokens"
    rows = f"256 rows at once ({fields[0]}), 4,096 fit; a step has 512"
    tokens = f"16,384 tokens ({fields[1]}), 65,536 fit; an update has 200,000"
    assert f"rollout batch {rows}" in lines and f"micro-batch {tokens}" in lines


def test_speed_what_is_assumed_hours_and_price():
    text = "\n".join(printed())
    assert "rollouts 102k tokens/s at 50% of the roofline (assumed): 1.5 h" in text
    assert "updates 51.2k tokens/s at 40% of the roofline (assumed): 30.0 min" in text
    assert (
        "together 2.0 h and $48.00 for 1,000 steps with 128 + 384 tokens a ro" in text
    )


def test_without_a_price_there_are_no_dollars_and_without_speed_no_hours():
    text = "\n".join(printed(price_per_hour=0.0))
    assert "together 2.0 h for 1,000 steps" in text and "$" not in text
    text = "\n".join(printed(speed=None))
    assert "no figures of H200" in text and "tokens/s" not in text


def test_a_name_cannot_steer_the_terminal():
    assert "\x1b" not in "\n".join(printed())
