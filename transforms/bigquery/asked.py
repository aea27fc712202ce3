"""How the user has asked for a table: the texts of errors name a flag only to those who have given flags."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Asked:
    """How the user has asked for what writes a table, for the texts of errors. Picklable.

    Attributes:
      disposition, endpoint, storage_endpoint: the names of these arguments or flags.
      leave_out: the remedy for a column that cannot be written.
      rename: follows the remedy "rename one", for two columns of one name.
      update: follows the remedy "add it to the table"; "": the user cannot ask for it.
      loads: begins a remedy by load jobs; "": the user cannot ask for them.
      partition: ends the remedy for a partition that cannot be written; likewise.
    """

    disposition: str = "disposition"
    endpoint: str = "endpoint"
    storage_endpoint: str = "storage_endpoint"
    leave_out: str = "leave it out of the schema"
    rename: str = ""
    update: str = ""
    loads: str = ""
    partition: str = ""


BY_ARGUMENTS = Asked()
BY_FLAGS = Asked(
    disposition="--write_disposition",
    endpoint="--bigquery_endpoint",
    storage_endpoint="--bigquery_storage_endpoint",
    leave_out="leave it out with --exclude_columns",
    rename=" (model outputs with --output_prefix)",
    update=" (--allow_schema_update does)",
    loads="give --write_method file_loads, which loads them, or ",
    partition="; a batch job writes to one with --write_method file_loads",
)
