"""The options of `sluice failures`."""

import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import check_number, flag, map_flag, parse_names
from sluice.pipelines.options.table import BigQueryFlags


@dataclasses.dataclass(frozen=True, kw_only=True)
class FailuresOptions(BigQueryFlags):
    """Options of `sluice failures`. Checks itself: an invalid value raises UsageError."""

    stages: tuple[str, ...] = flag(
        "Only failures of these stages (read, decode, bind, predict, encode, write)", (), parse_names, group="Input",
        metavar="A,B,...",
    )  # fmt: skip
    error_types: tuple[str, ...] = flag(
        "Only failures of these types, as in their error_type", (), parse_names, group="Input", metavar="A,B,..."
    )
    message: str = flag("Only failures whose error_message holds this text", "", group="Input", metavar="TEXT")
    map: tuple[tuple[str, str], ...] = map_flag(
        "--map of the job, so that remedies name the inputs of its model; may be repeated"
    )
    row_restriction: str = flag(
        "Read only the rows of a table that meet this condition, as after WHERE: timestamp > '...'", "",
        group="Input", metavar="SQL",
    )  # fmt: skip
    top: int = flag("Show so many reasons; 0: all", 20, int, group="Output", metavar="N")
    export: str = flag(
        "Also write the failures to this new file, as JSON Lines for people to edit and `sluice replay` to send", "",
        group="Output", metavar="FILE",
    )  # fmt: skip
    export_rows: str = flag(
        "Also write the rows of the failures to this new file, one a line, where they are text: input for "
        "`sluice batch`. CSV lacks its header, then",
        "",
        group="Output",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        check_number(self, "top", whole=True)
        if self.export and self.export == self.export_rows:
            raise UsageError("--export and --export_rows name the same file; give them two")
