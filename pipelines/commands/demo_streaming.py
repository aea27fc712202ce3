"""`sluice demo-streaming`: its flags. commands.demo_streaming_run runs the demo. `make demo-streaming` runs it."""

import argparse
import logging
import signal

from sluice.models.errors import SluiceError, UsageError
from sluice.pipelines.commands.demo import make_model, say
from sluice.pipelines.commands.pubsub_emulator import MISSING, find_emulator
from sluice.pipelines.commands.to_paste import to_paste
from sluice.pipelines.logs import tell
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_OK
from sluice.pipelines.signals import handling

HELP = "score messages of an emulated Pub/Sub, and show the predictions and how long they took"
DESCRIPTION = """Starts Google's Pub/Sub emulator and a streaming job, publishes rows, and shows predictions and their
latency."""
EPILOG = "It needs java and the emulator, which is part of the gcloud SDK, and no cloud."

_VARIABLE = "export PUBSUB_EMULATOR_HOST=127.0.0.1:8085"
_NEXT = """
To do the same by hand, use three terminals. In the last two, run this first:

{first}

  {emulator} --host=127.0.0.1 --port=8085

  sluice simulate --create --topic projects/demo/topics/input --rows 1
  sluice streaming --model {model} --input_topic projects/demo/topics/input \\
      --output out/predictions.jsonl --failures out/failed

  sluice simulate --topic projects/demo/topics/input --rate 50

The job writes a file of predictions every 10 s. Ctrl-C ends each command; the job finishes its messages first.

For Pub/Sub itself, leave out the emulator and the variable, and put your project in the place of `demo`. For Dataflow,
add --runner=DataflowRunner --project=P --region=R --temp_location=gs://BUCKET/tmp to `sluice streaming`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice demo-streaming`."""
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to publish rows (default: %(default)g)")
    parser.add_argument("--rate", type=float, default=50.0, help="rows per second (default: %(default)g)")
    parser.add_argument(
        "--output", default="demo-output", metavar="DIR", help="directory for the model (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs the demo; returns 0 if every row came back with its prediction, else 1.

    Raises:
      UsageError: the emulator is not installed, or a flag is invalid.
    """
    if not (0 < args.rate < float("inf") and 0 < args.seconds < float("inf")):
        raise UsageError(f"--rate and --seconds are above 0, found {args.rate:g} and {args.seconds:g}")
    command = find_emulator()
    if not command:
        raise UsageError(MISSING)
    # As ctrl-C does, these raise KeyboardInterrupt, so that the processes of the demo are stopped.
    with handling(signal.default_int_handler, signal.SIGTERM, signal.SIGHUP):
        model = make_model(args.output)
        from sluice.pipelines.commands.demo_streaming_run import demonstrate  # imports the Pub/Sub client, and Beam

        try:
            code = demonstrate(model, args.rate, args.seconds)
        except (RuntimeError, SluiceError) as error:
            tell(f"sluice demo-streaming: {error}\n", logging.ERROR)
            return EXIT_FAILED
    if code == EXIT_OK:
        say(_NEXT.format(emulator=" ".join(command), model=model, first=to_paste(_VARIABLE)))
    return code
