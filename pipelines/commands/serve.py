"""`sluice serve`: the reference server for development and tests, which follows TF Serving's API."""

import argparse
import contextlib
import dataclasses
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from sluice.models.errors import UsageError
from sluice.pipelines.logs import FORMATS, TEXT, tell
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_OK
from sluice.pipelines.signals import handling

if TYPE_CHECKING:
    from sluice.models.server.faults import Faults
    from sluice.models.server.reference import ReferenceServer, ServerOptions
    from sluice.models.server.store import ModelConfig
    from sluice.models.server.vertex.server import VertexServer

Item = TypeVar("Item")
Options = TypeVar("Options", "Faults", "ServerOptions")

HELP = "serve models to clients under test; follows TF Serving's API, but is not TF Serving"

DESCRIPTION = """Serves SavedModels on 127.0.0.1 to clients under development and test.

This is the reference server of Sluice. It is NOT TF Serving: it follows TF Serving's gRPC API (Predict,
GetModelMetadata, GetModelStatus) and REST API closely enough to test clients. It is neither fast enough nor safe enough
for users: for them, run tensorflow_model_server."""

EPILOG = """When it is ready it prints one line; ctrl-C or SIGTERM ends it:
  serving on grpc 127.0.0.1:8500, rest http://127.0.0.1:8501: criteo versions 1

examples:
  sluice serve --model work/model --name criteo
  sluice serve --model a --name a --model b --name b --versions all --labels stable=1,canary=2
  sluice serve --model work/model --name criteo --latency_ms 20 --error_rate 0.05 --max_rows 512
  sluice serve --model work/model --name criteo --vertex"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice serve`."""
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="DIR",
        help="directory of numbered versions, or one SavedModel, whose version is its directory's name if that is a "
        "number, else 1; repeat it, with another --name, for more models",
    )
    parser.add_argument("--name", action="append", required=True, help="the model's name in requests")
    parser.add_argument(
        "--versions",
        action="append",
        type=_versions,
        metavar="latest|all|N,...",
        help="which versions to load side by side (default: latest); give it once, or for each --model",
    )
    parser.add_argument(
        "--labels",
        action="append",
        type=_labels,
        metavar="LABEL=N,...",
        help="names of versions in requests; give it once, or for each --model",
    )
    parser.add_argument("--grpc_port", type=int, default=8500, help="0: a free port (default: %(default)s)")
    parser.add_argument("--rest_port", type=int, default=8501, help="0: a free port (default: %(default)s)")
    parser.add_argument(
        "--poll_secs",
        type=float,
        default=1.0,
        help="how often to look for new and removed versions; 0: never (default: %(default)s)",
    )
    parser.add_argument(
        "--model_timeout_secs",
        type=float,
        default=600.0,
        help="deadline of one call of a model; a call that does not end is tried once more, then the server ends with "
        "exit code 1; 0: none (default: %(default)s)",
    )
    parser.add_argument(
        "--max_message_bytes", type=int, default=0, help="refuse larger gRPC requests (default: unlimited)"
    )
    parser.add_argument(
        "--tensor_content",
        action="store_true",
        help="send numbers in gRPC responses as bytes, as TF Serving's --enable_serialization_as_tensor_content does",
    )
    parser.add_argument(
        "--vertex",
        action="store_true",
        help="offer the models as a local Vertex AI too: an online endpoint for each, and batch prediction jobs",
    )
    parser.add_argument("--vertex_port", type=int, default=8502, help="0: a free port (default: %(default)s)")
    parser.add_argument(
        "--log_format",
        choices=FORMATS,
        default=TEXT,
        help="log lines: for people, or a JSON object each, with time, level, logger, message and fields",
    )
    _add_faults(parser.add_argument_group("faults", "errors and delays of predict calls, made on purpose"))


def _add_faults(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--latency_ms", type=float, default=0.0, help="delay each call by so much")
    group.add_argument("--error_rate", type=float, default=0.0, help="share of calls that fail, from 0 to 1")
    group.add_argument("--error_code", default="UNAVAILABLE", help="status of calls that fail (default: %(default)s)")
    group.add_argument(
        "--first_errors", type=int, default=0, metavar="N", help="fail the first N calls with --error_code"
    )
    group.add_argument("--hang_rate", type=float, default=0.0, help="share of calls that get no response, from 0 to 1")
    group.add_argument("--max_rows", type=int, default=0, help="refuse larger batches (default: no limit)")
    group.add_argument(
        "--max_concurrency", type=int, default=0, help="refuse further calls while so many run (default: no limit)"
    )
    group.add_argument("--wrong_rows", action="store_true", help="respond with one row too few")
    group.add_argument("--seed", type=int, help="seed of random faults (default: a new one each time)")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM, and returns 0; or until a call of a model does not end, and returns 1.

    Raises:
      UsageError: flags that do not fit, no such model, or a port in use.
    """
    configs = _configs(args)
    ended = threading.Event()
    reasons: list[str] = []

    def end(reason: str) -> None:
        reasons.append(reason)
        ended.set()

    with (
        handling(lambda *_: ended.set(), signal.SIGINT, signal.SIGTERM),
        _open(configs, args, end) as server,
        _open_vertex(configs, args, server) as vertex,
    ):
        print("\n".join([_ready_line(server), *_vertex_lines(vertex, configs)]), flush=True)
        ended.wait()
    if reasons:
        tell(f"sluice serve: {reasons[0]}\n", logging.ERROR)
        return EXIT_FAILED
    return EXIT_OK


def _open(
    configs: "dict[str, ModelConfig]", args: argparse.Namespace, on_lost: Callable[[str], None]
) -> "ReferenceServer":
    from sluice.models.server.faults import Faults
    from sluice.models.server.reference import ReferenceServer, ServerOptions  # imports gRPC and the protos

    def of(options: type[Options]) -> Options:
        return options(**{field.name: getattr(args, field.name) for field in dataclasses.fields(options)})

    return ReferenceServer(configs, faults=of(Faults), options=of(ServerOptions), on_lost=on_lost)


@contextlib.contextmanager
def _open_vertex(
    configs: "dict[str, ModelConfig]", args: argparse.Namespace, server: "ReferenceServer"
) -> "Iterator[VertexServer | None]":
    if not args.vertex:
        yield None
        return
    from sluice.models.server.vertex.faults import VertexFaults
    from sluice.models.server.vertex.server import VertexServer  # imports Google's client of Vertex AI
    from sluice.pipelines.commands.job_files import StoredJobFiles
    from sluice.pipelines.commands.job_tables import BigQueryTables

    bases = {name: config.base for name, config in configs.items()}
    vertex = VertexServer(
        server.predictor,
        bases,
        port=args.vertex_port,
        files=StoredJobFiles(),
        tables=BigQueryTables(),
        faults=VertexFaults(polls=0),  # a job ends when it is done
    )
    with vertex:
        yield vertex


def _configs(args: argparse.Namespace) -> "dict[str, ModelConfig]":
    from sluice.models.server.store import LATEST, ModelConfig

    count = len(args.model)
    if len(args.name) != count or len(set(args.name)) != count:
        raise UsageError(f"{count} --model and {len(set(args.name))} different --name; each model needs its own name")
    versions = _for_each("versions", args.versions, count, LATEST)
    labels = _for_each("labels", args.labels, count, {})
    return {name: ModelConfig(*each) for name, *each in zip(args.name, args.model, versions, labels, strict=True)}


def _for_each(flag: str, given: list[Item] | None, count: int, default: Item) -> Iterable[Item]:
    given = given or [default]
    if len(given) not in (1, count):
        raise UsageError(f"--{flag} is given {len(given)} times for {count} models; give it once, or for each of them")
    return given * count if len(given) == 1 else given


def _ready_line(server: "ReferenceServer") -> str:
    models = ", ".join(
        f"{name} versions {','.join(map(str, versions))}" for name, versions in server.store.loaded().items()
    )
    return f"serving on grpc 127.0.0.1:{server.grpc_port}, rest http://127.0.0.1:{server.rest_port}: {models}"


def _vertex_lines(vertex: "VertexServer | None", names: Iterable[str]) -> Iterator[str]:
    if vertex:
        yield f"serving Vertex AI's API: --vertex_endpoint {vertex.url}"
        for name in names:
            yield f"  --model vertex://{vertex.resources.endpoint_name(name)}"
            yield f"  --model vertex://{vertex.resources.model_name(name)}"


def _versions(text: str) -> str | tuple[int, ...]:
    if text in ("latest", "all"):
        return text
    return tuple(_version(part) for part in text.split(","))


def _labels(text: str) -> dict[str, int]:
    parts = [part.partition("=") for part in text.split(",")]
    if not all(label and equals for label, equals, _ in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not LABEL=VERSION,...")
    return {label: _version(version) for label, _, version in parts}


def _version(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not the number of a version")
    return int(text)
