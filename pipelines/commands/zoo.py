"""`sluice zoo NAME`: trains a known model here and now, and writes input for it to score."""

import argparse
import os

from sluice.models import zoo
from sluice.models.errors import UsageError
from sluice.models.zoo.export import export_model
from sluice.models.zoo.sample import WRITERS, write_samples
from sluice.pipelines.commands.to_paste import to_paste

HELP = "make a known model, and sample input for it"
DESCRIPTION = "Trains a small model of a known kind on made-up data, and writes sample input for it."
EPILOG = """example:
  sluice zoo criteo --export work --rows 10000 --formats csv,jsonl"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice zoo`."""
    models = "; ".join(f"{name}: {zoo.get(name).description}" for name in zoo.NAMES)
    parser.add_argument("name", choices=zoo.NAMES, metavar="NAME", help=models)
    parser.add_argument("--export", required=True, metavar="DIR", help="directory for the model and the sample input")
    parser.add_argument("--rows", type=_rows, default=10_000, help="rows of sample input (default: %(default)s)")
    parser.add_argument(
        "--formats",
        type=_formats,
        default=("csv",),
        metavar="FORMAT,...",
        help=f"formats of the sample input, among {', '.join(WRITERS)} (default: csv)",
    )
    parser.add_argument("--seed", type=_seed, default=1, help="seed of the training rows (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Writes DIR/model/VERSION and DIR/NAME.FORMAT, prints their paths and what to try next; returns 0.

    Raises:
      UsageError: DIR/model holds another model.
    """
    model = zoo.get(args.name)
    base_dir = os.path.join(args.export, "model")
    _check_base(base_dir, args.export, model.name)
    print(f"{model.name}: {model.description}")
    print(f"model   {export_model(model, base_dir, seed=args.seed)}", flush=True)
    # With another seed, the rows are not those that the model was trained on.
    paths = write_samples(model, args.export, args.rows, args.formats, seed=args.seed + 1)
    for path in paths:
        print(f"sample  {path}  {args.rows:,} rows, {os.path.getsize(path):,} bytes")
    output = os.path.join(args.export, "predictions" + os.path.splitext(paths[0])[1])
    command = f"sluice batch --model {base_dir} --input {paths[0]} --output {output}"
    print(f"\nNow try:\n{to_paste(command)}")
    return 0


def _check_base(base_dir: str, directory: str, name: str) -> None:
    """Raises UsageError if `base_dir` holds another model: two models are not two versions of one."""
    ours = any(os.path.exists(os.path.join(directory, f"{name}.{format_}")) for format_ in WRITERS)
    if os.path.exists(base_dir) and not ours:
        raise UsageError(f"{base_dir} exists, and {directory} holds no {name} sample: give {name} its own --export DIR")


def _rows(text: str) -> int:
    rows = int(text)
    if rows < 1:
        raise argparse.ArgumentTypeError(f"{rows} rows: give 1 or more")
    return rows


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise argparse.ArgumentTypeError(f"seed {seed}: give 0 or more")
    return seed


def _formats(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in WRITERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no format {', '.join(map(repr, unknown))}; there are {', '.join(WRITERS)}")
    return names
