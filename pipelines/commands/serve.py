"""`sluice serve`: the reference server, which follows TF Serving's API, for development and tests."""

import argparse
import contextlib
import dataclasses
import importlib.util
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from sluice.models.errors import UsageError

if TYPE_CHECKING:
    from sluice.models.server.reference import ReferenceServer
    from sluice.models.server.store import ModelConfig

Item = TypeVar("Item")

DESCRIPTION = """Serves SavedModels on 127.0.0.1 to clients under development and test.

This is the reference server of Sluice. It is NOT TF Serving: it follows TF Serving's gRPC API (Predict,
GetModelMetadata, GetModelStatus) and REST API closely enough to test clients against, and is neither fast nor safe
enough to serve anybody. Use tensorflow_model_server for that."""

EPILOG = """When it serves it says so in one line, and it ends with Ctrl-C or SIGTERM:
  serving on grpc 127.0.0.1:8500, rest http://127.0.0.1:8501: criteo versions 1

examples:
  sluice serve --model work/model --name criteo
  sluice serve --model a --name a --model b --name b --versions all --labels stable=1,canary=2
  sluice serve --model work/model --name criteo --latency_ms 20 --error_rate 0.05 --max_rows 512"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice serve`."""
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="DIR",
        help="directory of numbered versions, or one SavedModel, which is served as the version that its directory's "
        "name says, or else 1; give it again, with another --name, for more models",
    )
    parser.add_argument("--name", action="append", required=True, help="the model's name in requests")
    parser.add_argument(
        "--versions",
        action="append",
        type=_versions,
        metavar="latest|all|N,...",
        help="which of them to load, side by side (default: latest); give it once, or for each --model",
    )
    parser.add_argument(
        "--labels",
        action="append",
        type=_labels,
        metavar="LABEL=N,...",
        help="names for versions in requests; give it once, or for each --model",
    )
    parser.add_argument("--grpc_port", type=int, default=8500, help="0: a free one (default: %(default)s)")
    parser.add_argument("--rest_port", type=int, default=8501, help="0: a free one (default: %(default)s)")
    parser.add_argument(
        "--poll_secs",
        type=float,
        default=1.0,
        help="how often to look for new and removed versions; 0: never (default: %(default)s)",
    )
    parser.add_argument(
        "--max_message_bytes", type=int, default=0, help="refuse larger gRPC requests (default: unlimited)"
    )
    parser.add_argument(
        "--tensor_content",
        action="store_true",
        help="numbers in gRPC answers as bytes; TF Serving's --enable_serialization_as_tensor_content",
    )
    _add_faults(parser.add_argument_group("faults", "what goes wrong with predict calls on purpose"))


def _add_faults(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--latency_ms", type=float, default=0.0, help="each takes at least so much longer")
    group.add_argument("--error_rate", type=float, default=0.0, help="part of them that fails, from 0 to 1")
    group.add_argument("--error_code", default="UNAVAILABLE", help="of those that fail (default: %(default)s)")
    group.add_argument("--first_errors", type=int, default=0, metavar="N", help="the first N fail with --error_code")
    group.add_argument("--hang_rate", type=float, default=0.0, help="part of them that gets no answer, from 0 to 1")
    group.add_argument("--max_rows", type=int, default=0, help="refuse larger batches (default: none is too large)")
    group.add_argument(
        "--max_concurrency", type=int, default=0, help="refuse calls beyond so many at once (default: no limit)"
    )
    group.add_argument("--wrong_rows", action="store_true", help="answer with one row too few")
    group.add_argument("--seed", type=int, help="of what is random (default: another each time)")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGINT or SIGTERM; returns 0.

    Raises:
      UsageError: flags that do not fit, no such model, a port in use, or TF Serving's protos are not installed.
    """
    configs = _configs(args)
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise UsageError("tensorflow-serving-api is not installed, which has the protos: pip install 'sluice[serve]'")
    with _signalled() as ended, _open(configs, args) as server:
        print(_ready_line(server), flush=True)
        ended.wait()
    return 0


@contextlib.contextmanager
def _signalled() -> Iterator[threading.Event]:
    """Gives an event that SIGINT and SIGTERM set while the block runs."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(configs: "dict[str, ModelConfig]", args: argparse.Namespace) -> "ReferenceServer":
    from sluice.models.server.faults import Faults
    from sluice.models.server.reference import ReferenceServer, ServerOptions

    def of(options: Any) -> Any:
        return options(**{field.name: getattr(args, field.name) for field in dataclasses.fields(options)})

    return ReferenceServer(configs, faults=of(Faults), options=of(ServerOptions))


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
