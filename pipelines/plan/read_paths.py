"""Which inputs of the model get what is in files: those of --read_paths, and of files that are rows."""

import os
from collections.abc import Collection, Sequence

import pyarrow as pa

from sluice.models.errors import UsageError
from sluice.models.signature import ColumnSpec, Signature
from sluice.models.tensors.column_types import plain_type, type_fits
from sluice.models.wording import text_of
from sluice.pipelines.plan.column_map import check_map
from sluice.pipelines.plan.model import JobOptions
from sluice.pipelines.plan.names import near_name, some_names
from sluice.transforms.core.file_contents import FileInputs
from sluice.transforms.core.file_paths import BadPath, PathRules, parse_root
from sluice.transforms.core.formats import CONTENT, FILES, PATH, TYPED_FORMATS
from sluice.transforms.files.find_source import Source

# (input, column of paths)
Pairs = tuple[tuple[str, str], ...]


def content_inputs(
    signature: Signature, mapped: Pairs, defaults: Collection[str], chosen: Collection[str]
) -> tuple[Pairs, Pairs]:
    """Returns the inputs that get what is in a file that is a row, and what is left of --map.

    They are those that --map gives `content`, or that have this name; or else the only one that takes bytes.

    Args:
      defaults: inputs that --column_defaults names.
      chosen: columns that --columns or --exclude_columns names.

    Raises:
      UsageError: there is none, or there are several.
    """
    check_map(mapped, {spec.name for spec in signature.columns}, (PATH, CONTENT), examples=False)
    if CONTENT in chosen:
        raise UsageError(
            f"column '{CONTENT}': what is in the files goes to the model and is not written; leave it out of --columns "
            "and --exclude_columns"
        )
    column_of = {spec.name: dict(mapped).get(spec.name, spec.name) for spec in signature.columns}
    named = [spec for spec in signature.columns if column_of[spec.name] == CONTENT]
    paths = [name for name, column in column_of.items() if column == PATH]
    pairs = tuple((spec.name, PATH) for spec in named or _only_one(signature, paths, defaults))
    return pairs, tuple(pair for pair in mapped if pair[1] != CONTENT)


def _only_one(signature: Signature, paths: Collection[str], defaults: Collection[str]) -> list[ColumnSpec]:
    """Returns the only input that takes bytes and has neither a path nor a default; none if the model takes paths.

    Args:
      paths: inputs that get the path.
    """
    free = [spec for spec in signature.columns if spec.name not in {*paths, *defaults} and _takes_bytes(spec)]
    if len(free) == 1 or (not free and paths):
        return free
    if not free:
        takes = some_names([f"'{spec.name}' ({spec})" for spec in signature.columns], 5)
        raise UsageError(
            f"--input_format {FILES}: the model takes {takes}, and none of it takes the bytes of a file: export a "
            "signature that takes a string and decodes it, with tf.io.decode_jpeg for example"
        )
    names = some_names([f"'{spec.name}'" for spec in free], 5)
    raise UsageError(
        f"--input_format {FILES}: the model takes several strings, {names}: say which gets what is in a file with "
        f"--map {free[0].name}={CONTENT}, and give values for others with --column_defaults {free[1].name}=VALUE"
    )


def _takes_bytes(spec: ColumnSpec) -> bool:
    return type_fits(pa.binary(), spec)


def check_read_paths(
    pairs: Pairs, signature: Signature, others: Collection[str], source: Source, columns: Sequence[str], examples: bool
) -> None:
    """Checks which inputs get what is in files.

    Args:
      others: inputs that --map or --column_defaults names.
      columns: the names of the source's, and of --input_schema; none: they are not known.
      examples: the model gets whole records.

    Raises:
      UsageError: it names an input or a column that is not there, an input twice, or one that takes no bytes.
    """
    inputs = {spec.name: spec for spec in signature.columns}
    for place, (name, column) in enumerate(pairs):
        flag = f"--map {name}={CONTENT}" if source.format == FILES else f"--read_paths {name}={column}"
        if examples:
            raise UsageError(f"{flag}: the model gets the tf.Examples as they are, and reads them itself; leave it out")
        if name not in inputs:
            raise UsageError(f"{flag}: the model takes no '{name}'{near_name(name, inputs)}")
        if name in others or name in [other for other, _ in pairs[:place]]:
            raise UsageError(f"{flag}: '{name}' is given a column or a value before, by this or another flag; give one")
        if not _takes_bytes(inputs[name]):
            raise UsageError(
                f"{flag}: the model takes {inputs[name]}, which the bytes of a file are not: export a signature that "
                "takes a string and decodes it"
            )
        if columns and column not in columns:
            raise UsageError(
                f"{flag}: the input has no column '{column}'{near_name(column, columns)}; it has {some_names(columns)}"
            )


def path_types(
    pairs: Pairs, source: Source, schema: dict[str, pa.DataType], needed: dict[str, pa.DataType]
) -> dict[str, pa.DataType]:
    """Returns the types of the columns that hold paths.

    Args:
      schema: types from --input_schema.
      needed: types of columns that are read for other inputs.

    Raises:
      UsageError: one is not text.
    """
    types = {}
    for name, column in pairs:
        found = source.types.get(column) if source.format in TYPED_FORMATS else None
        kind = found or schema.get(column) or pa.string()
        if not _is_text(kind) or needed.get(column, kind) != kind:
            other = needed.get(column, kind) if _is_text(kind) else kind
            raise UsageError(f"--read_paths {name}={column}: paths are text, and column '{column}' is {other}")
        types[column] = kind
    return types


def _is_text(kind: pa.DataType) -> bool:
    plain = plain_type(kind)
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def file_inputs(pairs: Pairs, options: JobOptions, rules: PathRules) -> FileInputs | None:
    """Returns how files are read for these inputs; None: there are none.

    Args:
      rules: where there is no --read_paths_root.

    Raises:
      UsageError: --read_paths_root is no directory.
    """
    if not pairs:
        return None
    if options.read_paths_root:
        rules = PathRules(_checked_root(options.read_paths_root))
    return FileInputs(pairs, rules, options.max_batch_bytes)


def _checked_root(text: str) -> str:
    try:
        root = parse_root(text)
    except BadPath as error:
        raise UsageError(f"--read_paths_root {text}: {text_of(error)}") from error
    if "://" not in root and not os.path.isdir(root):
        raise UsageError(f"--read_paths_root {text}: there is no such directory")
    return root
