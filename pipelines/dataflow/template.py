"""`sluice template metadata`: the parameters of a Flex Template, for Dataflow's console and API.

They are made from the same fields as the flags of the command line. For their form see
https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates#metadata and TemplateMetadata in
https://cloud.google.com/dataflow/docs/reference/rest/v1b3/TemplateMetadata.
"""

import argparse
import dataclasses
import json
import sys
from typing import Any

from sluice.models.errors import UsageError
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.options.flags import GROUPS, join_list, parse_bool
from sluice.pipelines.options.streaming import StreamingOptions
from sluice.pipelines.options.vertex import VertexFlags

Field = dataclasses.Field[Any]
Parameter = dict[str, Any]

HELP = "write the parameters of a Dataflow Flex Template"
DESCRIPTION = "Writes the metadata of a Flex Template: its parameters, as Dataflow's console shows and checks them."
EPILOG = """examples:
  sluice template metadata --pipeline streaming --output deploy/streaming_metadata.json
  sluice template metadata --pipeline batch --image europe-west1-docker.pkg.dev/P/sluice/sluice:1 --output batch.json"""

OPTIONS: dict[str, type] = {"batch": BatchOptions, "streaming": StreamingOptions}
_TITLES = {
    "batch": ("Sluice: score files", "Scores files or a BigQuery table with a TensorFlow model, row by row."),
    "streaming": (
        "Sluice: score messages",
        "Scores the messages of a Pub/Sub subscription with a TensorFlow model as they come.",
    ),
}

# Flags for jobs that run in this process or on Flink, or whose end the command waits for.
_LOCAL = (
    "max_bundle_messages",
    "max_bundle_delay_ms",
    "max_delivery_attempts",
    "max_restarts",
    "readers",
    "health_port",
    "health_address",
    "check",
    "summary_file",
    "report_file",
    "progress",
    "log_format",
)
# Flags of managed jobs, which the launcher of a template could not wait for.
_MANAGED = tuple(field.name for field in dataclasses.fields(VertexFlags))
# Flags for files on the launching machine or on workers, where a template puts none.
_MACHINE_FILES = ("rpc_ca_file", "rpc_token_file")

_GCS = r"^gs://[^\n\r]+$"
# The type of a parameter and the expression for its values, by the metavar of a flag.
_KINDS = {
    "GLOB": ("GCS_READ_FILE", _GCS),
    "FILE": ("GCS_READ_FILE", _GCS),
    "FILE|auto": ("TEXT", r"^(auto|gs://[^\n\r]+)$"),
    "PATH": ("GCS_WRITE_FILE", _GCS),
    "SUBSCRIPTION": ("PUBSUB_SUBSCRIPTION", r"^projects/[^\n\r/]+/subscriptions/[^\n\r/]+$"),
    "TOPIC": ("PUBSUB_TOPIC", r"^projects/[^\n\r/]+/topics/[^\n\r/]+$"),
    "TABLE": ("BIGQUERY_TABLE", r"^[^\s/]+[.:][^\s/.:]+\.[^\s/.:]+$"),
    "URI": ("TEXT", r"^(gs|grpcs?|https?|vertex(\+http)?)://[^\n\r]+$"),
}
_NUMBERS = {int: r"^-?[0-9]+$", float: r"^-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?$"}
_ACRONYMS = {"csv": "CSV", "id": "ID", "rpc": "RPC", "rest": "REST", "bigquery": "BigQuery", "google": "Google"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `sluice template`."""
    parser.add_argument("what", choices=("metadata",), help="what to write")
    parser.add_argument("--pipeline", required=True, choices=tuple(OPTIONS), help="which job's parameters")
    parser.add_argument("--image", default="", help="container image, as the default in the template's form")
    parser.add_argument("--output", default="", metavar="FILE", help="file to write; default: standard output")


def run(args: argparse.Namespace) -> int:
    """Writes the metadata; returns 0.

    Raises:
      UsageError: the file cannot be written.
    """
    text = to_json(metadata(args.pipeline, args.image))
    if not args.output:
        sys.stdout.write(text)
        return 0
    try:
        with open(args.output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"--output {args.output} cannot be written: {error.strerror}") from error
    return 0


def to_json(value: dict[str, Any]) -> str:
    """Returns the text of a metadata file."""
    return json.dumps(value, indent=2) + "\n"


def metadata(pipeline: str, image: str = "") -> dict[str, Any]:
    """Returns a template's metadata.

    Args:
      pipeline: batch or streaming.
      image: the form's default for the container image; "": none.
    """
    name, description = _TITLES[pipeline]
    streaming = pipeline == "streaming"
    modes = {"supportsAtLeastOnce": True, "supportsExactlyOnce": True, "defaultStreamingMode": "EXACTLY_ONCE"}
    return {
        "name": name,
        "description": description,
        "streaming": streaming,
        **(modes if streaming else {}),
        "parameters": [*map(_parameter, template_fields(pipeline)), *_beam_parameters(image)],
    }


def template_fields(pipeline: str) -> list[Field]:
    """Returns the options that are a template's parameters, in the order of its form.

    Secrets are left out: everybody who may see a job sees its parameters.
    """
    fields = [
        field
        for field in dataclasses.fields(OPTIONS[pipeline])
        if not field.metadata["secret"] and field.name not in (*_LOCAL, *_MANAGED, *_MACHINE_FILES)
    ]
    return sorted(fields, key=lambda field: GROUPS.index(field.metadata["group"]))


def _parameter(field: Field) -> Parameter:
    meta = field.metadata
    default = "" if field.default is dataclasses.MISSING else to_text(field.default)
    kind, regex = _kind(field)
    parameter = {
        "name": field.name,
        "label": _label(field.name),
        "helpText": _help(field),
        "groupName": meta["group"],
        "isOptional": field.default is not dataclasses.MISSING,
        "paramType": kind,
    }
    if regex:
        parameter["regexes"] = [regex]
    if meta["choices"]:
        parameter["enumOptions"] = [{"value": choice, "label": choice} for choice in meta["choices"]]
    return parameter | ({"defaultValue": default} if default else {})


def _kind(field: Field) -> tuple[str, str]:
    """Returns a parameter's type, and the expression that its values match; "": any."""
    meta = field.metadata
    if meta["parse"] is parse_bool:
        return "BOOLEAN", ""
    if meta["choices"]:
        return "ENUM", ""
    if meta["parse"] in _NUMBERS:
        return "NUMBER", _NUMBERS[meta["parse"]]
    return _KINDS.get(meta["metavar"], ("TEXT", ""))


def _label(name: str) -> str:
    words = [_ACRONYMS.get(word, word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


def _help(field: Field) -> str:
    """Returns a flag's help; for a list, with its form."""
    listed = field.metadata["metavar"] if "," in field.metadata["metavar"] else ""
    return f"{field.metadata['help']}, as {listed}" if listed else field.metadata["help"]


def to_text(value: object) -> str:
    """Returns the text of a flag that means this value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return join_list(["=".join(item) if isinstance(item, tuple) else str(item) for item in value])
    return "" if value is None else str(value)


def _beam_parameters(image: str) -> list[Parameter]:
    """Returns parameters for the flags of Beam that a launch may need and the launch environment has no fields for."""
    group = {"groupName": "Dataflow"}
    return [
        {
            "name": "sdk_container_image",
            "label": "Container image",
            "helpText": "Image for the workers: the template's own image has all that they need",
            **group,
            "isOptional": False,
            "paramType": "TEXT",
            **({"defaultValue": image} if image else {}),
        },
        {
            "name": "number_of_worker_harness_threads",
            "label": "Threads of a worker",
            "helpText": "Bundles that a worker process handles at a time; default: by the model and the machine",
            **group,
            "isOptional": True,
            "paramType": "NUMBER",
            "regexes": [r"^[1-9][0-9]*$"],
        },
        {
            "name": "dataflow_service_options",
            "label": "Service options",
            "helpText": "Options of the service, such as a GPU: "
            "worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver",
            **group,
            "isOptional": True,
            "paramType": "TEXT",
        },
    ]
