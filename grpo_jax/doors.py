"""What the doors share: the configuration flag, and errors a person can read."""

import ast
import dataclasses
import functools
import logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from grpo_jax import config_files, config_json
from grpo_jax.config import TrainConfig
from grpo_jax.rewards.scoring import RewardError

# Flags belong to the door that asks for them: its --help shows them.
flags.disclaim_key_flags()

# Errors of a user's input: shown as one message, without a traceback.
_INPUT_ERRORS = (ValueError, OSError, FloatingPointError)


def define_config() -> flags.FlagHolder:
    """Defines --config=FILE.py[:ARG] and --config.section.field=value."""
    config_flags.register_flag_parser_for_type(int, _Integer())
    config_flags.register_flag_parser_for_type(float, _Float())
    config_flags.register_flag_parser_for_type(dict, _Dict())
    holder = config_flags.DEFINE_config_file(
        "config",
        None,
        "A file of configs/ with get_config, and :ARG if it takes one; or config.json "
        "of a workdir.",
    )
    flags.FLAGS["config"].parser = _ConfigFile()
    return holder


def sealed(flag: flags.FlagHolder, *, show: bool = True) -> TrainConfig:
    """Returns the checked configuration, and shows where it leaves the defaults."""
    if flag.value is None:
        raise ValueError("--config is missing: name a file, such as configs/gsm8k.py")
    config = flag.value.seal()
    for line in config_json.changes(config) if show else ():
        print(line, flush=True)
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
            return config_files.of_workdir(workdir), workdir, self.checkpoint.value
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


def run(main: Callable[[list[str]], Any], places: tuple[str, ...] = ()) -> None:
    """Runs a door: mistakes in the input end it with one message and status 1.

    Args:
      main: called with the program's name and the places.
      places: what the arguments that are no flags stand for.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    logging.getLogger("jax").setLevel(logging.WARNING)

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except BrokenPipeError:
            # The reader, such as `head`, has seen enough: nothing to flush at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except _INPUT_ERRORS as error:
            if isinstance(error, RewardError) and error.__cause__:
                traceback.print_exception(error.__cause__)  # of the user's own code
            sys.exit(f"error: {_message(error)}")

    app.run(guarded, flags_parser=functools.partial(_parse, places))


def _message(error: Exception) -> str:
    """Returns the message of an error; of the system's, without its number."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _parse(places: tuple[str, ...], argv: list[str]) -> list[str]:
    """Parses flags; a mistake ends the program with one message."""
    try:
        arguments = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        config_files.check_overrides(arguments[1:])
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config."):
            sys.exit(
                f"error: --{error.flagname} changes a configuration: give it with "
                "--config=FILE.py, or --config=WORKDIR/config.json of a run"
            )
        sys.exit(f"error: {error}\nuse --help for all flags")
    except KeyError as error:
        sys.exit(f"error: {config_files.unknown_name(argv, error.args[0])}")
    except (flags.Error, ValueError) as error:
        sys.exit(f"error: {error}")
    if rest[1:] and not places:
        sys.exit(f"error: unexpected arguments {rest[1:]}: write --flag=value")
    if len(rest[1:]) != len(places):
        sys.exit(
            f"error: {len(rest[1:])} arguments were given, {rest[1:]}: write "
            f"{' '.join(places)}, and flags as --flag=value"
        )
    return rest


class _ConfigFile(flags.ArgumentParser):
    """Turns the value of --config into a configuration."""

    def parse(self, argument: str) -> TrainConfig:
        return config_files.load(argument)


class _Integer(flags.IntegerParser):
    def convert(self, argument: int | str) -> int:
        try:
            return super().convert(argument)
        except ValueError:
            raise ValueError("it must be a whole number, such as 100") from None


class _Float(flags.FloatParser):
    def convert(self, argument: float | str) -> float:
        try:
            return super().convert(argument)
        except ValueError:
            raise ValueError("it must be a number, such as 0.5 or 1e-6") from None


class _Dict(flags.ArgumentParser):
    """Parses --config.reward.weights='{"accuracy": 1.0}'."""

    def parse(self, argument: Any) -> dict[str, Any]:
        try:
            value = ast.literal_eval(argument) if type(argument) is str else argument
        except (SyntaxError, ValueError):
            value = None
        if not isinstance(value, dict):
            raise ValueError('write it like \'{"accuracy": 1.0, "format": 0.1}\'')
        return value
