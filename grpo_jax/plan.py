"""Says whether a run fits its devices, how fast it would be, and what it would cost.

    python -m grpo_jax.plan --config=configs/gsm8k.py --device=H200 --price_per_hour=3
    python -m grpo_jax.plan --config=configs/gsm8k.py --device=v5ex8 \
        --config.mesh.fsdp=8

Nothing is compiled and no weights are read. Ends with status 1 where the run does not
fit, and names the smallest change that would make it fit.
"""

import sys

from absl import flags

from grpo_jax import doors
from grpo_jax.policy import devices
from grpo_jax.reporting import plans
from grpo_jax.trainer import forecast, run

_CONFIG = doors.define_config()
_DEVICE = flags.DEFINE_string(
    "device",
    "",
    f"{', '.join(devices.DEVICES)}; several of one as in v5ex8. Default: what this "
    "machine has.",
)
_PRICE = flags.DEFINE_float(
    "price_per_hour", 0.0, "Dollars, of all devices together.", lower_bound=0.0
)


def main(_: list[str]) -> None:
    """Plans and prints."""
    config = doors.sealed(_CONFIG, show=False)
    named = devices.parse(_DEVICE.value) if _DEVICE.value else None
    data = forecast.as_data(run.plan(config, named), _PRICE.value)
    plans.print_plan(data)
    if data["problem"]:
        sys.exit(f"error: {data['problem']}")


if __name__ == "__main__":
    doors.run(main)
