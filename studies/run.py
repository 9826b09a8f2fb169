"""Runs a study, one process a core, and writes what it found. Again: resumes.

python -m studies.run guidance
python -m studies.run guidance --only=sparse/additive/0
python -m studies.run guidance --set=--config.trainer.steps=2 --output=/tmp/short
"""

import importlib
import pathlib

from absl import app, flags

from studies.study import Name, Study

_OUTPUT = flags.DEFINE_string("output", "", "Where runs go; default runs/study_STUDY.")
_ONLY = flags.DEFINE_list("only", [], "REGIME/ARM/SEED, ...; default: all.")
_SET = flags.DEFINE_multi_string("set", [], "A --config.FIELD=VALUE for every run.")


def main(argv: list[str]) -> None:
    """Runs what is missing, then writes the tables and the figure of what there is."""
    if len(argv) != 2:
        raise app.UsageError("name one study, as in: python -m studies.run guidance")
    what = importlib.import_module(f"studies.{argv[1]}")
    results = importlib.import_module(f"studies.{argv[1]}_results")
    output = pathlib.Path(_OUTPUT.value or f"runs/study_{argv[1]}")
    names = [Name.parse(text, what.arms()) for text in _ONLY.value] or what.names()
    study = Study(str(what.__file__), what.start, output, _SET.value)
    study.run(names)
    results.write(output)


if __name__ == "__main__":
    app.run(main)
