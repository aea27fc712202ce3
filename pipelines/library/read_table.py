"""`ReadTable`: a table of BigQuery, or the results of a query, as RecordBatches."""

from collections.abc import Sequence

from sluice.models.cache import ModelLike
from sluice.models.errors import UsageError
from sluice.pipelines.library.signature import default_columns, signature_of
from sluice.pipelines.plan.input_columns import Wanted, plan_input
from sluice.pipelines.plan.model import launch_errors
from sluice.transforms.bigquery.clients import check_endpoints
from sluice.transforms.bigquery.find_table import find_query, find_table
from sluice.transforms.bigquery.read import ReadSession
from sluice.transforms.decode.spec import CsvOptions


class ReadTable(ReadSession):
    """Reads a table, or the results of a query, into RecordBatches, in Arrow, by the Storage Read API.

    The table is looked at when this is made, and checked against the model. Returns what `ReadFiles` returns.

    Args:
      table: PROJECT.DATASET.TABLE; with * at its end, all tables whose names begin so.
      model: as for `Predict`; its columns must be there, and have types that it takes. None: all columns are read.
      query: GoogleSQL, one SELECT statement, instead of a table.
      columns: the columns to read besides those of the model; None: all.
      row_restriction: of a table: GoogleSQL, a condition as it follows WHERE.
      project: pays for reading; "": the table's. A query needs one.
      endpoint, storage_endpoint: HOST:PORT of an emulator; None: Google's.

    Raises:
      UsageError: there is no such table, the query is wrong, or it and the model do not fit.
    """

    def __init__(
        self,
        table: str = "",
        model: ModelLike | None = None,
        *,
        query: str = "",
        columns: Sequence[str] | None = None,
        row_restriction: str = "",
        project: str = "",
        endpoint: str | None = None,
        storage_endpoint: str | None = None,
    ) -> None:
        if bool(table) == bool(query):
            raise UsageError("give a table, or a query")
        with launch_errors():
            check_endpoints(endpoint, storage_endpoint)
            if query:
                found = find_query(query, project, endpoint, storage_endpoint)
            else:
                found = find_table(table, row_restriction, project, endpoint, storage_endpoint)
            wanted = Wanted({}, None if columns is None else tuple(columns), defaults=default_columns(model))
            spec = plan_input(found.source, signature_of(model), wanted, CsvOptions()).spec
        super().__init__(found.table, spec)
