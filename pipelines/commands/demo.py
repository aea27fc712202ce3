"""`sluice demo`: makes a known model and sample data, scores the data, and shows predictions. `make demo` runs it."""

import argparse
import csv
import itertools
import os
import sys

from sluice.models.zoo import get
from sluice.models.zoo.export import export_model
from sluice.models.zoo.sample import write_samples
from sluice.pipelines.commands.to_paste import to_paste
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.progress.table import align

HELP = "make a model, score sample data with it, and show the predictions"
DESCRIPTION = """Trains a small model on made-up data, scores sample rows with it as `sluice batch` does, and shows
the first predictions."""
EPILOG = "It needs no data, no server and no cloud."

MODEL = "criteo"
# Columns that are shown of the first rows: all forty do not fit on a screen.
_SHOWN = ("id", "I1", "I2", "C1", "C2", "label", "score")
_SHOWN_ROWS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice demo`."""
    parser.add_argument("--rows", type=int, default=200_000, help="rows of sample data (default: %(default)s)")
    parser.add_argument(
        "--output",
        default="demo-output",
        metavar="DIR",
        help="directory for model, data and predictions (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs the demo; returns the exit code of its batch job."""
    from sluice.pipelines.batch import run as run_batch  # imports Beam

    model, sample = os.path.join(args.output, "model"), os.path.join(args.output, f"{MODEL}-{args.rows}.csv")
    _prepare(args.output, sample, args.rows)
    output = os.path.join(args.output, "predictions.csv")
    say(f"\n$ sluice batch --model {model} --input {sample} --output {output} --overwrite")
    code = run_batch(BatchOptions(input=sample, model=model, output=output, overwrite=True), [])
    if code == 0:
        _show(f"{output.removesuffix('.csv')}-00000-of-00001.csv")
        say(f"\nNow try:\n{to_paste(f'sluice inspect --model {model}')}")
    return code


def _prepare(directory: str, sample: str, rows: int) -> None:
    """Makes the model and the sample, unless an earlier run did."""
    make_model(directory)
    if not os.path.exists(sample):
        say(f"Writing {rows:,} rows of sample input ...")
        made = write_samples(get(MODEL), directory, rows, ("csv",))[0]
        os.replace(made, sample)


def make_model(directory: str) -> str:
    """Makes the model, unless an earlier run did; returns the base path of its versions."""
    zoo, model = get(MODEL), os.path.join(directory, "model")
    if not os.path.exists(os.path.join(model, "1", "saved_model.pb")):
        say(f"Training {zoo.name}, a small wide & deep model for ad clicks, on made-up data ...")
        export_model(zoo, model)
    return model


def _show(path: str) -> None:
    say(f"\nSome columns of the first rows of {path}:\n")
    with open(path, newline="", encoding="utf-8") as file:
        rows = [[row[name] for name in _SHOWN] for row in itertools.islice(csv.DictReader(file), _SHOWN_ROWS)]
    say("\n".join(align([_SHOWN, *rows], ">", indent="  ")))


def say(text: str) -> None:
    """Prints a line at once: the next step may take a while."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
