"""Runs graphs that were staged for Dataflow, in a process with what a worker has; `hermetic.Worker` starts it.

It imports nothing of the checkout. Each line of its standard input is a request:
{"graphs": {NAME: GS_PATH}, "messages": [BASE64, ...]}, with "modules": true if every module of ours is to be imported.
The line of its answer is {NAME: ERROR or ""}, with a name "modules" if that was asked. Messages are serialized
PubsubMessages. They replace what a Pub/Sub source would read, because that source is not portable.
"""

import base64
import functools
import importlib
import json
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable
from typing import Any

import apache_beam as beam
from apache_beam.internal.gcp.auth import _Credentials
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns, python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners import pipeline_context
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.environments import EmbeddedPythonEnvironment

_MODULES = "modules"
_PACKAGE = "sluice"
_EXTRA = "sluice.models.server"  # needs the extra `serve`
_PUBSUB_READ = common_urns.composites.PUBSUB_READ.urn
_COMPONENTS = ("transforms", "pcollections", "coders", "windowing_strategies", "environments")


def run(path: str, messages: list[bytes]) -> None:
    """Runs the graph at a gs:// path to its end."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        graph = beam_runner_api_pb2.Pipeline.FromString(file.read())
    feed_sources(graph, messages)
    for environment in graph.components.environments.values():
        environment.urn, environment.payload = python_urns.EMBEDDED_PYTHON, b""
        del environment.dependencies[:]
    FnApiRunner().run_via_runner_api(graph, PipelineOptions([])).wait_until_finish()


def feed_sources(graph: beam_runner_api_pb2.Pipeline, messages: list[bytes]) -> None:
    """Replaces each Pub/Sub source by an Impulse and a step that turns it into messages."""
    for source in [each for each in graph.components.transforms.values() if each.spec.urn == _PUBSUB_READ]:
        feed = feeding_graph(messages)
        for kind in _COMPONENTS:
            ours, theirs = getattr(graph.components, kind), getattr(feed.components, kind)
            for name in theirs:
                ours[name].CopyFrom(theirs[name])
        graph.root_transform_ids.extend(feed.root_transform_ids)
        (maker,) = [each for each in feed.components.transforms.values() if each.unique_name == "Messages"]
        source.spec.CopyFrom(maker.spec)
        source.environment_id = maker.environment_id
        source.inputs.update(maker.inputs)


def feeding_graph(messages: list[bytes]) -> beam_runner_api_pb2.Pipeline:
    pipeline = beam.Pipeline(options=PipelineOptions([]))
    impulse = pipeline | "Impulse" >> beam.Impulse()
    _ = impulse | "Messages" >> beam.FlatMap(lambda _: messages).with_output_types(bytes)
    environment = EmbeddedPythonEnvironment.default()
    context = pipeline_context.PipelineContext(default_environment=environment, namespace="fed")
    return pipeline.to_runner_api(context=context)


def import_modules() -> None:
    for module in pkgutil.walk_packages(importlib.import_module(_PACKAGE).__path__, f"{_PACKAGE}."):
        if not module.name.startswith((_EXTRA, f"{_PACKAGE}.__main__")):
            importlib.import_module(module.name)


def error_of(action: Callable[[], None]) -> str:
    """Returns the traceback of what an action raises; "" if it succeeds."""
    try:
        action()
    except Exception:  # noqa: BLE001  the test looks at it
        return traceback.format_exc()
    return ""


def answer(request: dict[str, Any]) -> dict[str, str]:
    messages = [base64.b64decode(each) for each in request["messages"]]
    errors = {name: error_of(functools.partial(run, path, messages)) for name, path in request["graphs"].items()}
    return errors | ({_MODULES: error_of(import_modules)} if request.get(_MODULES) else {})


def main() -> None:
    _Credentials._credentials_init = True  # there are none, and looking for them takes half a minute
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the graphs print is no answer
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
