"""Tables for tests that read BigQuery: one with every type and mode, and one with many rows."""

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.cloud import bigquery

from sluice.models.zoo import natality
from sluice.transforms.bigquery.clients import close, read_client
from sluice.transforms.bigquery.find_table import FoundTable
from sluice.transforms.bigquery.read import open_streams, read_stream
from sluice.transforms.core.formats import BIGQUERY
from sluice.transforms.decode.spec import Decoded, InputSpec
from tests.support.servers import BigQuery

SCALARS = {
    "INTEGER": (pa.int64(), [1, -(2**63), 2**53 + 1]),
    "FLOAT": (pa.float64(), [0.5, float("inf"), -1e300]),
    "BOOLEAN": (pa.bool_(), [True, False, True]),
    "STRING": (pa.string(), ["a", "", "ü\n漢"]),
    "BYTES": (pa.binary(), [b"a", b"", b"\x00\xff"]),
    "NUMERIC": (pa.decimal128(38, 9), ["1.5", "-0.000000001", "12345678901234567890.123456789"]),
    "BIGNUMERIC": (pa.decimal256(76, 38), ["1.5", "-0.000000000000000001", "1234567890.5"]),
    "DATE": (pa.date32(), ["2026-01-02", "0001-01-01", "9999-12-31"]),
    "TIME": (pa.time64("us"), ["10:11:12.000013", "00:00:00", "23:59:59.999999"]),
    "DATETIME": (pa.timestamp("us"), ["2026-01-02T03:04:05.000006", "1900-01-01T00:00:00", "9999-12-31T00:00:00"]),
    "TIMESTAMP": (
        pa.timestamp("us", "UTC"),
        ["2026-01-02 03:04:05.000006+00", "1900-01-01 00:00:00+00", "2200-12-31 00:00:00+00"],
    ),
    "JSON": (pa.string(), ['{"a":[1,null]}', '"x"', "3"]),
    "GEOGRAPHY": (pa.string(), ["POINT(1 2)", "POINT(3 4)", "POINT(5 6)"]),
}
FIELDS: list[dict[str, Any]] = [
    {"name": "id", "type": "INTEGER", "mode": "REQUIRED"},
    *({"name": f"v_{kind.lower()}", "type": kind} for kind in SCALARS),
    {"name": "many", "type": "STRING", "mode": "REPEATED"},
    {"name": "one", "type": "RECORD", "fields": [{"name": "x", "type": "FLOAT"}, {"name": "y", "type": "STRING"}]},
    {
        "name": "nested",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [{"name": "day", "type": "DATE"}, {"name": "tags", "type": "STRING", "mode": "REPEATED"}],
    },
]


def kinds_table(bigquery_: BigQuery) -> str:
    """Makes a table with every type and mode: rows 0 to 2 hold values, row 3 holds nulls."""
    values = "".join(
        f", ({row}, {', '.join(_literal(kind, values[row]) for kind, (_, values) in SCALARS.items())}, "
        f"['m', '{row}'], STRUCT({row}.5, 'y{row}'), [STRUCT(DATE '2026-01-0{row + 1}', ['t', 'u'])])"
        for row in range(3)
    )
    table = bigquery_.make_table(FIELDS)
    bigquery_.client.query(f"INSERT INTO `{table}` VALUES {values[2:]}").result()
    bigquery_.client.query(f"INSERT INTO `{table}` (id) VALUES (3)").result()
    return table


def _literal(kind: str, value: Any) -> str:
    if kind in ("NUMERIC", "BIGNUMERIC", "DATE", "TIME", "DATETIME", "TIMESTAMP", "JSON"):
        return f"{kind} '{value}'"
    if kind == "GEOGRAPHY":
        return f"ST_GEOGFROMTEXT('{value}')"
    if kind == "BYTES":
        return f"FROM_HEX('{value.hex()}')"
    if kind == "FLOAT":
        return f"CAST('{value}' AS FLOAT64)"
    return str(value) if kind in ("INTEGER", "BOOLEAN") else json.dumps(value, ensure_ascii=False)


def make_births(rows: int, seed: int = 1) -> pa.Table:
    """Returns rows of natality's columns, some of them null, with an id."""
    generator = np.random.default_rng(seed)
    births = pa.Table.from_batches([natality.make_block(generator, rows)])
    early = pa.array(np.where(generator.random(rows) < 0.1, None, births["gestation_weeks"].to_numpy()), pa.float64())
    births = births.set_column(births.schema.get_field_index("gestation_weeks"), "gestation_weeks", early)
    return births.append_column("id", pa.array(range(rows), pa.int64()))


def load(bigquery_: BigQuery, rows: pa.Table) -> str:
    """Makes a table of these rows; returns its id, PROJECT.DATASET.TABLE."""
    file = io.BytesIO()
    pq.write_table(rows, file)
    file.seek(0)
    table = f"{bigquery_.make_dataset()}.table"
    config = bigquery.LoadJobConfig(source_format=bigquery.SourceFormat.PARQUET)
    bigquery_.client.load_table_from_file(file, table, job_config=config).result()
    return table


def spec_of(found: FoundTable, *names: str) -> InputSpec:
    """Returns the spec that reads these columns unchanged; all columns if none is named."""
    return InputSpec(BIGQUERY, tuple((name, found.source.types[name]) for name in names or found.source.names))


def read_all(found: FoundTable, spec: InputSpec, retry_secs: float = 20.0, **options: Any) -> Decoded:
    """Reads all streams of a session, one after the other."""
    client = read_client(found.table.storage_endpoint)
    whole = Decoded()
    try:
        for stream in open_streams(client, found.table, spec, retry_secs):
            for decoded, size in read_stream(client, stream, found.table, spec, retry_secs, **options):
                assert size > 0
                whole.add(decoded)
    finally:
        close(client)
    return whole
