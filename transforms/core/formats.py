"""The file formats: their names, and how the names of their files end.

`transforms.decode.formats` and `transforms.encode.formats` map each name to its implementation.
"""

CSV, JSONL, PARQUET, AVRO, TFRECORD = "csv", "jsonl", "parquet", "avro", "tfrecord"
FORMATS = (CSV, JSONL, PARQUET, AVRO, TFRECORD)
# Files of any kind, each of them a row: its path, and what is in it. Nothing is written so.
FILES = "files"
PATH, CONTENT = "path", "content"
INPUT_FORMATS = (*FORMATS, FILES)
# The rows of a table or of a query: an input without files.
BIGQUERY = "bigquery"

# Inputs whose columns have types. All their rows have the same columns.
TYPED_FORMATS = (PARQUET, AVRO, BIGQUERY, FILES)
# Formats of rows: a row can be written as its own source text, with columns added to it.
RAW_FORMATS = (CSV, JSONL, TFRECORD)

ENDINGS = {
    ".csv": CSV,
    ".jsonl": JSONL,
    ".json": JSONL,
    ".ndjson": JSONL,
    ".parquet": PARQUET,
    ".avro": AVRO,
    ".tfrecord": TFRECORD,
    ".tfrecords": TFRECORD,
}
# .tsv is CSV with tabs. We write none.
INPUT_ENDINGS = ENDINGS | {".tsv": CSV}
# The endings of packed files, after those.
PACKED = (".gz", ".bz2", ".zst")
# The endings of output files. Parquet and Avro compress inside, so only the others are gzipped.
OUTPUT_ENDINGS = ENDINGS | {f"{ending}.gz": name for ending, name in ENDINGS.items() if name in RAW_FORMATS}


def input_ending(path: str) -> str:
    """Returns the end of an input file's name that shows its format, and that it is packed; "" if none does."""
    packing = next((ending for ending in PACKED if path.endswith(ending)), "")
    plain = path.removesuffix(packing)
    return next((ending + packing for ending in INPUT_ENDINGS if plain.endswith(ending)), "")


def input_format(path: str) -> str:
    """Returns the format of an input file, packed or not, by its name; "" if the name does not show it."""
    ending = input_ending(path)
    return next((name for plain, name in INPUT_ENDINGS.items() if ending in (plain, *map(plain.__add__, PACKED))), "")
