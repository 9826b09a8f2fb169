"""What the doors share: the configuration flag, and errors a person can read."""

import dataclasses
import logging
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from grpo_jax import config as configuration
from grpo_jax.config import TrainConfig
from grpo_jax.trainer import logbook

# Errors of a user's input: shown as one message, without a traceback.
_INPUT_ERRORS = (ValueError, OSError, FloatingPointError)


def define_config() -> flags.FlagHolder:
    """Defines --config=FILE.py[:ARG] and --config.section.field=value."""
    return config_flags.DEFINE_config_file(
        "config", None, "A file of configs/ with get_config, and :ARG if it takes one."
    )


def sealed(flag: flags.FlagHolder) -> TrainConfig:
    """Returns the checked configuration, printed."""
    if flag.value is None:
        raise ValueError("--config is missing: name a file, such as configs/gsm8k.py")
    config = flag.value.seal()
    print(configuration.to_json(config), flush=True)
    return config


@dataclasses.dataclass(frozen=True)
class PolicyFlags:
    """The flags that say which weights a door looks at."""

    config: flags.FlagHolder
    workdir: flags.FlagHolder[str]
    checkpoint: flags.FlagHolder[str]

    def values(self) -> tuple[TrainConfig, pathlib.Path, str]:
        """Returns the configuration, the workdir and the checkpoint.

        Without --config the configuration is the workdir's own.
        """
        workdir = pathlib.Path(self.workdir.value)
        if self.config.value is None:
            return logbook.read_config(workdir), workdir, self.checkpoint.value
        return self.config.value.seal(), workdir, self.checkpoint.value


def define_policy() -> PolicyFlags:
    """Defines --config, --workdir and --checkpoint."""
    return PolicyFlags(
        define_config(),
        flags.DEFINE_string("workdir", None, "Of the run.", required=True),
        flags.DEFINE_string(
            "checkpoint",
            "",
            "latest, best, a step, or start (the weights before GRPO). Default: the "
            "latest if there is one, else start.",
        ),
    )


def run(main: Callable[[list[str]], Any]) -> None:
    """Runs a door: mistakes in the input end it with one message and status 1."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except _INPUT_ERRORS as error:
            sys.exit(f"error: {error}")

    app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; an unknown configuration field is named with its nearest names."""
    try:
        return flags.FLAGS(argv)
    except (KeyError, AttributeError) as error:
        sys.exit(f"error: {error.args[0] if error.args else error}")
    except flags.Error as error:
        sys.exit(f"error: {error}\nuse --helpfull for all flags")
