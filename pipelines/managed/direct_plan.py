"""Checks a job whose input the service reads itself, before it is paid for, and returns the request for it.

What the service makes of each format is fixed: https://cloud.google.com/vertex-ai/docs/predictions/get-batch-predictions
A line of JSON is an instance as it is; a line of CSV is an array of its values; a record of a TFRecord file is
{"b64": ...}; a row of a table is an object. So only some signatures can be called so.
"""

import dataclasses
from collections.abc import Sequence

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec, Signature, TensorSpec
from sluice.pipelines.managed.job import JobRequest, Machines, RegisteredModel
from sluice.pipelines.managed.label import files_state, flags_label, job_label, table_state
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.first_rows import check_rows, check_sample
from sluice.pipelines.plan.input_columns import Wanted, plan_input
from sluice.pipelines.plan.model import find_signature
from sluice.pipelines.plan.names import near_name
from sluice.transforms.bigquery.find_table import find_table
from sluice.transforms.bigquery.read import read_sample
from sluice.transforms.bigquery.read_session import TableInput
from sluice.transforms.bigquery.table import parse_table_id
from sluice.transforms.core.beam_files import match_files
from sluice.transforms.core.formats import BIGQUERY, CSV, FILES, JSONL, OUTPUT_ENDINGS, TFRECORD, input_format
from sluice.transforms.decode.json_values import Json
from sluice.transforms.decode.spec import CsvOptions
from sluice.transforms.files.find_source import Source, find_source

# The service's names of formats, and which a model lists.
_INSTANCES = {JSONL: "jsonl", CSV: "csv", TFRECORD: "tf-record", BIGQUERY: "bigquery"}
_GZIPPED = {"tf-record": "tf-record-gzip"}
_PREDICTIONS = (JSONL, CSV)
_INSTEAD = "leave --vertex_direct out, and Sluice converts the rows"
# The service's limit.
_MAX_DISPLAY_NAME = 128
_NESTED = ("single ones", "lists", "lists of lists")


@dataclasses.dataclass(frozen=True)
class _Input:
    """The input as it is found.

    Attributes:
      format: the service's name of it.
      uris: of files, or the one of the table.
      state: for the label.
      table: None: it is files.
    """

    source: Source
    format: str
    uris: tuple[str, ...]
    state: tuple[str, ...]
    table: TableInput | None = None


def plan_direct(
    options: BatchOptions,
    model: RegisteredModel,
    machines: Machines,
    project: str = "",
    account: str = "",
    local: bool = False,
) -> JobRequest:
    """Returns the request for the job; its attempt is 0 until there is one.

    Args:
      project: is billed for what is read from BigQuery at launch; "": the table's own.
      account: Beam's --impersonate_service_account.
      local: the service is on this machine, and reads and writes local files too.

    Raises:
      UsageError: model and input do not fit, or the service cannot read or write them.
    """
    for path in options.inputs:
        _check_storage("input", path, local)
    output, output_format = _output(options, local)
    endpoint = dataclasses.replace(options.endpoint_options(), google_account=account)
    _, signature, _ = find_signature(options, (), endpoint)
    given = _table(options, project) if options.input_table else _files(options, signature)
    _check_formats(model, given.format, output_format)
    fields = _check_fit(given, signature)
    return JobRequest(
        model=model.versioned_name,
        label=job_label(given.state, model.versioned_name, signature, options),
        attempt=0,
        display_name=f"sluice {model.display_name or model.name.rpartition('/')[2]}"[:_MAX_DISPLAY_NAME],
        inputs=given.uris,
        output=output,
        machines=machines,
        input_format=given.format,
        output_format=output_format,
        instance_type="object" if fields else "",
        fields=fields,
        flags=flags_label(model.versioned_name, signature, options),
    )


def _files(options: BatchOptions, signature: Signature) -> _Input:
    pattern, *others = options.inputs
    if others:
        raise UsageError(f"--input {others[0]}: with --vertex_direct one glob names all files; {_INSTEAD}")
    files = match_files(pattern)
    kind = options.input_format or input_format(files[0].path if files else pattern)
    if kind and kind not in _INSTANCES:
        what = "no files as rows" if kind == FILES else f"no {kind} files"
        raise UsageError(f"--input {pattern}: the service reads {what}; {_INSTEAD}")
    paths = tuple(file.path for file in files)
    if files and kind == TFRECORD and not signature.takes_examples:  # records of any bytes
        source = Source(kind, paths[0], len(paths), sum(file.size_in_bytes for file in files), ())
    else:
        source = find_source(pattern, options.input_format, CsvOptions())
        _check_readable(pattern, source, paths)
    format_ = _packed_format(pattern, source.format, paths)
    return _Input(source, format_, paths, (format_, *files_state(pattern)))


def _check_readable(pattern: str, source: Source, paths: Sequence[str]) -> None:
    """Refuses what Sluice reads and the service does not."""
    if source.patterns != (pattern,):
        raise UsageError(f"--input {pattern} is a directory: give a glob of its files; or {_INSTEAD}")
    other = [path for path in paths if path.endswith((".bz2", ".zst", ".tsv"))]
    if other or source.arrays or source.csv.cr_ends:
        what = (
            other[0]
            if other
            else f"{source.path}, a JSON array"
            if source.arrays
            else f"{source.path}, without newlines"
        )
        raise UsageError(f"--input {pattern} matches {what}: the service does not read such files; {_INSTEAD}")


def _packed_format(pattern: str, kind: str, paths: Sequence[str]) -> str:
    """Returns the service's name of the format of files: another one if they are gzipped.

    Raises:
      UsageError: the service does not unpack such files, or some are gzipped and others are not.
    """
    format_ = _INSTANCES[kind]
    packed = [path for path in paths if path.endswith(".gz")]
    if packed and (format_ not in _GZIPPED or len(packed) < len(paths)):
        what = "either gzipped files, or others" if format_ in _GZIPPED else f"no gzipped {kind} files"
        raise UsageError(f"--input {pattern} matches {packed[0]}: the service reads {what}; {_INSTEAD}")
    return _GZIPPED[format_] if packed else format_


def _check_storage(flag: str, path: str, local: bool) -> None:
    if not (local or path.startswith("gs://")):
        raise UsageError(f"--{flag} {path}: the service reads and writes Cloud Storage only; give a gs:// path")


def _table(options: BatchOptions, project: str) -> _Input:
    found = find_table(
        options.input_table, "", project, options.bigquery_endpoint or None, options.bigquery_storage_endpoint or None
    )
    reference = parse_table_id(options.input_table)
    if not found.table.stored or "$" in reference.table_id:
        raise UsageError(
            f"--input_table {options.input_table}: the service reads whole tables, and no view, partition or several "
            f"tables; {_INSTEAD}"
        )
    uri = f"bq://{reference.project}.{reference.dataset_id}.{reference.table_id}"
    return _Input(found.source, _INSTANCES[BIGQUERY], (uri,), table_state(found.table), found.table)


def _output(options: BatchOptions, local: bool) -> tuple[str, str]:
    """Returns where the service writes, and in which format."""
    if options.output_table:
        reference = parse_table_id(options.output_table)
        return f"bq://{reference.project}.{reference.dataset_id}.{reference.table_id}", _INSTANCES[BIGQUERY]
    _check_storage("output", options.output, local)
    ending = next((ending for ending in OUTPUT_ENDINGS if options.output.endswith(ending)), "")
    if ending:
        raise UsageError(
            f"--output {options.output}: with --vertex_direct it is a directory, and the service names the files; give "
            f"it no '{ending}', and --output_format for the format"
        )
    format_ = options.output_format or JSONL
    if format_ not in _PREDICTIONS:
        raise UsageError(f"--output_format {format_}: the service writes {' or '.join(_PREDICTIONS)}; {_INSTEAD}")
    return options.output.rstrip("/"), _INSTANCES[format_]


def _check_formats(model: RegisteredModel, given: str, wanted: str) -> None:
    """Checks the formats that the registry lists for the model; it may list none."""
    for word, name, known in (("reads", given, model.input_formats), ("writes", wanted, model.output_formats)):
        if known and name not in known:
            raise UsageError(
                f"--model {model.name}: the service {word} no {name} for this model, but {', '.join(known)}; {_INSTEAD}"
            )


def _check_fit(given: _Input, signature: Signature) -> tuple[str, ...]:
    """Checks the first rows as the model will get them.

    Returns:
      The fields of an object that are the model's; (): all, or there are no objects.

    Raises:
      UsageError: they do not fit.
    """
    if given.source.format == CSV:
        _check_sample(given, _array_signature(given.source, signature))
        return ()
    if given.source.format == TFRECORD:
        _check_takes_records(given.source, signature)
        if signature.takes_examples:
            _check_sample(given, signature)
        return ()
    served = _as_served(signature)
    _check_names(given.source, served)
    _check_depth(given.source, served)
    _check_sample(given, served)
    names = tuple(spec.name for spec in served.columns)
    # Rows of a table become arrays unless objects are asked for.
    return () if given.table is None and set(given.source.names) <= set(names) else names


def _as_served(signature: Signature) -> Signature:
    """Returns the signature by its inputs: the service does not make tf.Examples of columns, as Sluice does."""
    return dataclasses.replace(signature, features=None)


def _check_names(source: Source, signature: Signature) -> None:
    """Checks that the columns have the names of the inputs: nobody renames them, as --map does.

    Raises:
      UsageError: one is missing.
    """
    for spec in signature.columns:
        if source.names and spec.name not in source.names:
            raise UsageError(
                f"--input {source.path}: the model takes column '{spec.name}'{near_name(spec.name, source.names)}, "
                f"which is not there, and the service sends columns under their own names. Rename it, or {_INSTEAD}"
            )


def _check_depth(source: Source, signature: Signature) -> None:
    """Checks that values are nested as the model takes them: nobody makes a list of one value of it, as Sluice does.

    Raises:
      UsageError: they are not.
    """
    for spec in signature.inputs:
        kind = source.types.get(spec.name)
        depth = _type_depth(kind) if kind else _value_depth(source.sample, spec.name)
        if spec.shape is not None and depth is not None and depth != len(spec.row_shape):
            raise UsageError(
                f"--input {source.path}: column '{spec.name}': the model takes {spec}, and values are "
                f"{_NESTED[min(depth, 2)]}; the service sends them as they are. Change them, or {_INSTEAD}"
            )


def _type_depth(kind: pa.DataType) -> int:
    return 1 + _type_depth(kind.value_type) if pa.types.is_list(kind) else 0


def _value_depth(rows: Sequence[dict[str, Json]], name: str) -> int | None:
    value = next((row[name] for row in rows if row.get(name) is not None), None)
    if value is None:
        return None
    depth = 0
    while isinstance(value, list):
        depth, value = depth + 1, value[0] if value else None
    return depth


def _check_sample(given: _Input, signature: Signature) -> None:
    wanted = Wanted({}, columns=())
    plan = plan_input(given.source, signature, wanted, CsvOptions())
    if given.table is None:
        check_sample(given.source, plan, signature, {})
    else:
        check_rows(read_sample(given.table, plan.spec), given.source, signature, {})


def _array_signature(source: Source, signature: Signature) -> Signature:
    """Returns a signature with a column for each of the file's: together they are the array that the model gets.

    Raises:
      UsageError: the model does not take an array of so many values.
    """
    width = len(source.names)
    only = signature.inputs[0]
    shape = only.row_shape
    array = only.shape is None or (len(shape) == 1 and shape[0] in (None, width))
    if len(signature.inputs) != 1 or not array:
        takes = ", ".join(f"'{spec.name}' ({spec})" for spec in signature.inputs)
        raise UsageError(
            f"--input {source.path}: the service makes an array of each line of CSV, of {width} values here; signature "
            f"'{signature.name}' takes {takes}. Give JSON Lines, or {_INSTEAD}"
        )
    columns = tuple(TensorSpec(name, only.dtype, (None,)) for name in source.names)
    return dataclasses.replace(signature, inputs=columns, features=None)


def _check_takes_records(source: Source, signature: Signature) -> None:
    only = ColumnSpec(signature.inputs[0].name, signature.inputs[0].dtype, signature.inputs[0].row_shape)
    if len(signature.inputs) != 1 or only.dtype != "string" or not only.is_scalar:
        takes = ", ".join(f"'{spec.name}' ({spec})" for spec in signature.inputs)
        raise UsageError(
            f"--input {source.path}: the service gives the model each record as bytes; signature '{signature.name}' "
            f"takes {takes}, and not one string. Give JSON Lines, or {_INSTEAD}"
        )
