"""What readers and writers with plain arguments share."""

import datetime
import uuid
from collections.abc import Mapping

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows


def types_of(schema: Mapping[str, pa.DataType] | pa.Schema | None) -> dict[str, pa.DataType]:
    """Returns the types of columns by name."""
    if isinstance(schema, pa.Schema):
        return dict(zip(schema.names, schema.types, strict=True))
    return dict(schema or {})


def in_one_window(elements: beam.PCollection, label: str) -> beam.PCollection:
    """Returns the same elements without the windows that they may have: what is written of them appears at once."""
    if elements.windowing.is_default():
        return elements
    return elements | label >> beam.WindowInto(GlobalWindows())


def job_name() -> str:
    """Returns a name that no other job has, for what is temporary."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d%H%M%S}-{uuid.uuid4().hex[:8]}"
