"""The processes of `benchmarks.bigquery`: each runs a contender's jobs on request, and reports what they cost.

A contender's module holds CONTENDERS, by name.
"""

import contextlib
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple, TypeAlias


class Contender(NamedTuple):
    """A way to read or to write.

    Attributes:
      run: the job: (table, rows); returns when all rows are read or written.
      scale: by what factor its large jobs have more rows than the others': a row costs it so little that few rows would
        be lost in the noise.
      prepare: (rows); makes the input of `run`, which does not count.
    """

    run: Callable[[str, int], None]
    scale: int = 1
    prepare: Callable[[int], Any] = lambda rows: None


class Cost(NamedTuple):
    """What a job costs, in seconds: CPU time (user and system) of the contender's process, and wall time."""

    cpu: float
    wall: float


# Makes a contender's process do a job: (table, rows).
Order: TypeAlias = Callable[[str, int], Cost]


class Measured(NamedTuple):
    """What one more row costs a contender.

    Attributes:
      rows: of the two jobs whose costs are subtracted.
      cpu_us, wall_us: microseconds, one value per turn.
    """

    rows: tuple[int, int]
    cpu_us: list[float]
    wall_us: list[float]

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpu_us)

    @property
    def wall(self) -> float:
        return statistics.median(self.wall_us)


def measure_rows(rows: tuple[int, int], turns: Sequence[tuple[Cost, Cost]]) -> Measured:
    """Returns what one more row costs, from the costs of a small and a large job in each turn."""
    more = rows[1] - rows[0]
    cpu_us = [(large.cpu - small.cpu) / more * 1e6 for small, large in turns]
    wall_us = [(large.wall - small.wall) / more * 1e6 for small, large in turns]
    return Measured(rows, cpu_us, wall_us)


def by_turns(
    module: str, sizes: tuple[int, int], runs: int, do: Callable[[Order, int], Cost], say: Callable[[str], None]
) -> dict[str, Measured]:
    """Runs a small and a large job of each contender of a module, one after the other, turn by turn.

    The processes are started beforehand, and each does a small job that does not count.

    Args:
      sizes: rows of a small job, and of a large one before it is scaled.
      runs: how many turns.
      do: orders a job of this many rows, and checks that it was done.
    """
    contenders: dict[str, Contender] = importlib.import_module(module).CONTENDERS
    scaled = {name: (sizes[0], sizes[1] * each.scale) for name, each in contenders.items()}
    turns: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in contenders}
    with contextlib.ExitStack() as stack:
        orders = {name: stack.enter_context(_started(module, name)) for name in contenders}
        for name, order in orders.items():
            do(order, scaled[name][0])
        for number in range(runs):
            for name, order in orders.items():
                small, large = (do(order, rows) for rows in scaled[name])
                say(f"  turn {number + 1}, {name}: {large.cpu:.2f} s of CPU, {large.wall:.2f} s")
                turns[name].append((small, large))
    return {name: measure_rows(scaled[name], each) for name, each in turns.items()}


@contextlib.contextmanager
def _started(module: str, name: str) -> Iterator[Order]:
    """Runs a contender's process while the block runs."""
    # Not as __main__: the functions of a main module are pickled with a copy of the module.
    program = "import sys; from benchmarks.bigquery_jobs import serve; serve(*sys.argv[1:])"
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program, module, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with process:
            try:
                yield lambda table, rows: _order(process, name, log, table, rows)
            finally:
                process.kill()


def _order(process: "subprocess.Popen[str]", name: str, log: IO[str], table: str, rows: int) -> Cost:
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it has ended, and gives no answer either
        process.stdin.write(json.dumps([table, rows]) + "\n")
        process.stdin.flush()
    if not (answer := process.stdout.readline()):
        log.seek(0)
        raise RuntimeError(f"{name} failed with {rows} rows:\n{log.read()[-3000:]}")
    return Cost(*json.loads(answer))


def serve(module: str, name: str) -> None:
    """Does the jobs that stdin names, one per line; prints what they cost."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    send_beam_to_emulator(os.environ["BIGQUERY_EMULATOR_HOST"])
    contender: Contender = importlib.import_module(module).CONTENDERS[name]
    for line in sys.stdin:
        table, rows = json.loads(line)
        contender.prepare(rows)
        # Frozen, the input costs the garbage collector nothing, as in a job that makes it as it goes.
        gc.collect()
        gc.freeze()
        cpu, wall = time.process_time(), time.perf_counter()
        contender.run(table, rows)
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]), file=answers)


def send_beam_to_emulator(url: str, put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Sends Beam's BigQuery clients of this process to the emulator; they have no option for it.

    Args:
      url: of the REST API; `transforms.bigquery.clients` finds that of the Storage API.
      put: sets an attribute.
    """
    import google.auth
    import google.cloud.bigquery_storage_v1 as storage
    from apache_beam.internal.gcp.auth import _ApitoolsCredentialsAdapter, _Credentials
    from apache_beam.io.gcp.internal.clients.bigquery import BigqueryV2
    from google.auth.credentials import AnonymousCredentials

    from sluice.transforms.bigquery.clients import read_client

    # There are no credentials. Beam would look for them for minutes, and then ask the user.
    put(_Credentials, "_credentials", _ApitoolsCredentialsAdapter(AnonymousCredentials()))
    put(_Credentials, "_credentials_init", True)
    put(google.auth, "default", lambda *_, **__: (AnonymousCredentials(), "proj1"))
    put(BigqueryV2, "BASE_URL", f"{url}/bigquery/v2/")
    original = storage.BigQueryReadClient
    put(storage, "BigQueryReadClient", lambda: original(transport=read_client().transport))
