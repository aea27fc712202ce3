"""Streaming inference on Google's Pub/Sub emulator: Sluice beside Beam's own local source, and Sluice alone.

`python -m benchmarks.streaming` starts the emulator, sends rows of the zoo's Criteo model to each job in turn, every
job in its own process, and writes benchmarks/STREAMING.md. `--smoke` only checks that all of it works.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

from benchmarks.checkouts import MODEL, prepare
from benchmarks.header import written_by

RESULTS = os.path.join(os.path.dirname(__file__), "STREAMING.md")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
      backlog, beam_backlog: messages; Beam's backlog is more than it scores in `beam_secs`.
      memory_rows: how many different rows are scored `memory_repeats` times, in each of `memory_runs` jobs.
      loads, beam_load: rows per second, and for how many seconds.
      swap_secs: between two versions.
    """

    backlog: int = 100_000
    beam_backlog: int = 10_000
    beam_secs: float = 12.0
    memory_rows: int = 20_000
    memory_repeats: int = 10
    memory_runs: int = 3
    loads: tuple[tuple[float, float], ...] = ((50, 60), (500, 25))
    beam_load: tuple[float, float] = (50, 20)
    swap_rate: float = 500
    swap_secs: float = 8.0


SMOKE = Sizes(10_000, 2_000, 3.0, 5_000, 4, 1, ((50, 16), (500, 4)), (50, 4), 500, 6.0)


def measure_memory(sizes: Sizes, model: str) -> dict[str, float]:
    """Measures the job without Pub/Sub, in its own process."""
    numbers = (sizes.memory_rows, sizes.memory_repeats, sizes.memory_runs)
    command = [sys.executable, "-m", "benchmarks.streaming", "--child", "memory", model, *map(str, numbers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def child(name: str, *arguments: str) -> None:
    """Runs Beam's job until it is killed; or measures the job without Pub/Sub and prints its figures as JSON."""
    if name == "beam":
        from benchmarks.streaming_beam import run_beam

        subscription, topic, model = arguments
        run_beam(subscription, topic, model)
    else:
        from benchmarks.streaming_memory import medians

        model, rows, repeats, runs = arguments
        print(json.dumps(medians(model, int(rows), int(repeats), int(runs))))


def run(sizes: Sizes) -> list[str]:
    """Runs all measurements, one after the other; returns the report's sections."""
    from benchmarks import streaming_runs as runs
    from benchmarks.streaming_jobs import say
    from benchmarks.streaming_report import BEAM, SLUICE, Figures, sections
    from sluice.pipelines.commands.pubsub_emulator import running_emulator
    from sluice.transforms.pubsub.clients import EMULATOR_VARIABLE
    from tests.support.servers import Pubsub

    model = MODEL
    say("Without Pub/Sub")
    memory = measure_memory(sizes, model)
    say(f"  {memory}")
    with running_emulator() as host:
        os.environ[EMULATOR_VARIABLE] = host
        pubsub = Pubsub(host)
        say(f"{SLUICE}: a backlog")
        throughput = {SLUICE: runs.sluice_throughput(pubsub, model, sizes.backlog)}
        say(f"  {throughput[SLUICE]}\n{BEAM}: a backlog")
        throughput[BEAM] = runs.beam_throughput(pubsub, model, sizes.beam_backlog, sizes.beam_secs)
        say(f"  {throughput[BEAM]}\n{SLUICE}: steady rates")
        latencies = {SLUICE: runs.sluice_latency(pubsub, model, sizes.loads)}
        say(f"  {latencies[SLUICE]}\n{BEAM}: a steady rate")
        latencies[BEAM] = [runs.beam_latency(pubsub, model, *sizes.beam_load)]
        say(f"  {latencies[BEAM]}\n{SLUICE}: the model replaced under load")
        swaps = runs.swap_under_load(pubsub, model, sizes.swap_rate, sizes.swap_secs)
        say(f"  {swaps}")
    return sections(Figures(throughput, memory, latencies, swaps))


def main(smoke: bool) -> None:
    """Runs all of it; writes STREAMING.md unless --smoke is given."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no child process is left behind
    started = time.perf_counter()
    prepare([], ())
    found = run(SMOKE if smoke else Sizes())
    lines = [
        "# Streaming inference, beside Beam's own local source",
        "",
        f"{written_by('streaming')}, in {time.perf_counter() - started:,.0f} s. The zoo's Criteo model (39 inputs), "
        "JSON messages of some 560 bytes. Google's Pub/Sub emulator, the job, and what sends and reads messages all "
        "share these cores.",
        "",
        "Beam's own is `ReadFromPubSub`, a function that parses the JSON, `RunInference` with the handler of the batch "
        "benchmark (its model kept in the process: by itself, it is loaded anew for every bundle), a function that "
        "makes the JSON, and `WriteToPubSub`, on BundleBasedDirectRunner, which is what the DirectRunner falls back to "
        "for streaming. It acknowledges messages before it processes them; Sluice does so once their predictions are "
        "published.",
        "",
        *found,
    ]
    text = "\n".join(lines) + "\n"
    if not smoke:
        with open(RESULTS, "w", encoding="utf-8") as file:
            file.write(text)
    print(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="measure little, and write nothing")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
    else:
        main(options.smoke)
