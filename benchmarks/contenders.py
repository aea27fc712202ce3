"""The same job done four ways: read a file, score it with the Criteo model, write each row with its score.

Each contender is a function (source, model directory, output prefix) that returns when the output is written. Each
imports what it needs and loads the model itself.

`python -m benchmarks.contenders FORMAT NAME SOURCE MODEL PREFIX` runs one.
"""

import csv
import glob
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

BATCH_ROWS = 4096
INTEGERS = [f"I{number}" for number in range(1, 14)]
CATEGORIES = [f"C{number}" for number in range(1, 27)]
INPUTS = INTEGERS + CATEGORIES
NAMES = ["id", *INPUTS, "label"]

Contender = Callable[[str, str, str], None]


def clear(prefix: str) -> None:
    """Deletes the output of an earlier run."""
    for path in glob.glob(f"{prefix}*"):
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)


def load(model: str, signature: str, inputs: Sequence[str]) -> Callable[..., np.ndarray]:
    """Returns a function from the input arrays, in order, to `score` float32 [rows]."""
    from sluice.models.saved_model.tensorflow_import import tensorflow

    tf = tensorflow()
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], f"{model}/1")
    definition = meta.signature_def[signature]
    tensor = session.graph.get_tensor_by_name
    feeds = [tensor(definition.inputs[name].name) for name in inputs]
    return session.make_callable(tensor(definition.outputs["score"].name), feed_list=feeds)


def sluice(source: str, model: str, prefix: str) -> None:
    """Runs `sluice batch` as the command does after its imports. Rows are carried unchanged from the source."""
    _sluice(source, model, prefix)


def sluice_columns(source: str, model: str, prefix: str) -> None:
    """Runs `sluice batch --columns ...`: every column of the output is encoded again, as in the loop."""
    _sluice(source, model, prefix, columns=tuple(NAMES))


def _sluice(source: str, model: str, prefix: str, **options: Any) -> None:
    from sluice.models.cache import clear_cache
    from sluice.pipelines.dataflow.runner import beam_options, make_pipeline
    from sluice.pipelines.graph import build_batch
    from sluice.pipelines.options.batch import BatchOptions
    from sluice.pipelines.plan.batch_job import plan_batch

    clear_cache()  # every run loads its model, as the other contenders do
    examples = source.endswith(".tfrecord")
    plan = plan_batch(
        BatchOptions(
            input=source,
            model=model,
            signature="serving_examples" if examples else "serving_default",
            output=f"{prefix}{'.tfrecord' if examples else '.csv'}",
            **options,
        )
    )
    pipeline = make_pipeline(beam_options([]))
    build_batch(pipeline, plan)
    pipeline.run().wait_until_finish()


def loop_csv(source: str, model: str, prefix: str) -> None:
    """One thread without Beam: pyarrow's reader, the model, pyarrow's writer, one after the other."""
    call = load(model, "serving_default", INPUTS)
    types = dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(["id", "label", *CATEGORIES], pa.string())
    # A block of 1 MB holds about 3,900 rows.
    read = pa_csv.ReadOptions(block_size=1 << 20, use_threads=False)
    reader = pa_csv.open_csv(source, read, convert_options=pa_csv.ConvertOptions(column_types=types))
    writer = None
    for batch in reader:
        feeds = [batch.column(name) for name in INPUTS]
        arrays = [c.cast(pa.binary()) if pa.types.is_string(c.type) else c for c in feeds]
        scores = call(*(array.to_numpy(zero_copy_only=False) for array in arrays))
        scored = batch.append_column("score", pa.array(scores))
        writer = writer or pa_csv.CSVWriter(f"{prefix}.csv", scored.schema)
        writer.write_batch(scored)
    if writer is not None:
        writer.close()


def loop_examples(source: str, model: str, prefix: str) -> None:
    """One thread without Beam: TensorFlow's reader, the model, TensorFlow's writer."""
    from sluice.models.saved_model.tensorflow_import import tensorflow

    tf = tensorflow()
    call = load(model, "serving_examples", ["examples"])
    with tf.io.TFRecordWriter(f"{prefix}.tfrecord") as writer:
        for batch in tf.data.TFRecordDataset(source).batch(BATCH_ROWS).as_numpy_iterator():
            for record, score in zip(batch, call(batch).tolist(), strict=True):
                writer.write(record + example_of(score))


def example_of(score: float) -> bytes:
    """Returns a serialized tf.Example of the score, which can be appended to another one."""
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example()
    example.features.feature["score"].float_list.value.append(score)
    return example.SerializeToString()


def make_handler(model: str, signature: str) -> Any:
    """Returns a Beam ModelHandler for rows, with the best inference function that we could write for it.

    Rows arrive one by one, as lists of fields or as serialized tf.Examples. NumPy turns them into columns, and the same
    callable as in the other contenders scores them.
    """
    from apache_beam.ml.inference.base import ModelHandler

    class Handler(ModelHandler):
        def load_model(self) -> Callable[..., np.ndarray]:
            return load(model, signature, INPUTS if signature == "serving_default" else ["examples"])

        def batch_elements_kwargs(self) -> dict[str, int]:
            return {"min_batch_size": BATCH_ROWS, "max_batch_size": BATCH_ROWS}

        def run_inference(self, batch: Sequence[Any], model: Callable, inference_args: Any = None) -> Iterator[tuple]:
            if signature != "serving_default":
                scores = model(np.array(batch, object))
            else:
                columns = list(zip(*batch, strict=True))[1:-1]
                integers = [np.array(column, np.int64) for column in columns[: len(INTEGERS)]]
                scores = model(*integers, *(np.array(column, object) for column in columns[len(INTEGERS) :]))
            return zip(batch, scores.tolist(), strict=True)

    return Handler()


def runinference_csv(source: str, model: str, prefix: str) -> None:
    """Runs Beam's RunInference row by row."""
    import apache_beam as beam
    from apache_beam.ml.inference.base import RunInference

    from sluice.pipelines.dataflow.runner import beam_options, make_pipeline

    with make_pipeline(beam_options([])) as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(source, skip_header_lines=1)
            | beam.Map(lambda line: line.split(","))
            | RunInference(make_handler(model, "serving_default"))
            | beam.Map(lambda result: f"{','.join(result[0])},{result[1]!r}")
            | beam.io.WriteToText(prefix, ".csv", header=",".join([*NAMES, "score"]))
        )


def runinference_examples(source: str, model: str, prefix: str) -> None:
    """Runs Beam's RunInference on serialized tf.Examples."""
    import apache_beam as beam
    from apache_beam.ml.inference.base import RunInference

    from sluice.pipelines.dataflow.runner import beam_options, make_pipeline

    with make_pipeline(beam_options([])) as pipeline:
        (
            pipeline
            | beam.io.ReadFromTFRecord(source)
            | RunInference(make_handler(model, "serving_examples"))
            | beam.Map(lambda result: result[0] + example_of(result[1]))
            | beam.io.WriteToTFRecord(prefix, file_name_suffix=".tfrecord")
        )


def tfx_bsl_examples(source: str, model: str, prefix: str) -> None:
    """Runs tfx_bsl's RunInference, from serialized tf.Examples to PredictionLogs."""
    import apache_beam as beam

    with _tfx_pipeline() as pipeline:
        (
            pipeline
            | beam.io.ReadFromTFRecord(source)
            | _tfx_run_inference(model)
            | beam.Map(lambda log: log.SerializeToString())
            | beam.io.WriteToTFRecord(prefix, file_name_suffix=".tfrecord")
        )


def tfx_bsl_csv(source: str, model: str, prefix: str) -> None:
    """Runs tfx_bsl's RunInference on rows of CSV, each turned into a tf.Example first."""
    import apache_beam as beam

    with _tfx_pipeline() as pipeline:
        (
            pipeline
            | beam.io.ReadFromText(source, skip_header_lines=1)
            | beam.Map(lambda line: row_example(line.split(",")))
            | _tfx_run_inference(model)
            | beam.Map(lambda log: log.SerializeToString())
            | beam.io.WriteToTFRecord(prefix, file_name_suffix=".tfrecord")
        )


def row_example(fields: Sequence[str]) -> bytes:
    """Returns a row of fields, in the order of NAMES, as a serialized tf.Example."""
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example()
    feature = example.features.feature
    for name, value in zip(NAMES, fields, strict=True):
        if name in INTEGERS:
            feature[name].int64_list.value.append(int(value))
        else:
            feature[name].bytes_list.value.append(value.encode())
    return example.SerializeToString()


def _tfx_pipeline() -> Any:
    from sluice.pipelines.dataflow.runner import beam_options, make_pipeline

    return make_pipeline(beam_options([]))


def _tfx_run_inference(model: str) -> Any:
    from tfx_bsl.public.beam import RunInference
    from tfx_bsl.public.proto import model_spec_pb2

    spec = model_spec_pb2.SavedModelSpec(model_path=f"{model}/1", signature_name=["serving_examples"])
    return RunInference(model_spec_pb2.InferenceSpecType(saved_model_spec=spec))


CONTENDERS: dict[str, dict[str, Contender]] = {
    "csv": {
        "Sluice": sluice,
        "Sluice, columns written anew": sluice_columns,
        "loop without Beam": loop_csv,
        "Beam RunInference": runinference_csv,
        "tfx_bsl RunInference": tfx_bsl_csv,
    },
    "tfrecord": {
        "Sluice": sluice,
        "loop without Beam": loop_examples,
        "Beam RunInference": runinference_examples,
        "tfx_bsl RunInference": tfx_bsl_examples,
    },
}


def count_rows(prefix: str) -> int:
    """Returns how many rows a contender has written."""
    from sluice.models.tensors.tfrecord import read_records

    rows = 0
    for path in glob.glob(f"{prefix}*"):
        if path.endswith(".csv"):
            with open(path, newline="", encoding="utf-8") as file:
                rows += sum(1 for _ in csv.reader(file)) - 1
        else:
            with open(path, "rb") as records:
                rows += sum(1 for _ in read_records(records))
    return rows


if __name__ == "__main__":
    CONTENDERS[sys.argv[1]][sys.argv[2]](*sys.argv[3:])
