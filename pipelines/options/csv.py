"""The flags for the dialect of CSV files, and for what stands for no value in them."""

import codecs
import dataclasses

from sluice.models.errors import UsageError
from sluice.pipelines.options.flags import check_number, flag, parse_bool, parse_names

# The flags of this file, which apply to files only.
CSV_FLAGS = (
    "column_names",
    "csv_delimiter",
    "csv_quote_char",
    "allow_quoted_newlines",
    "csv_encoding",
    "csv_skip_lines",
    "rename_duplicate_columns",
    "null_values",
    "null_strings",
)


def parse_mark(text: str) -> str:
    r"""Returns a delimiter; a tab for \t as people type it, which a shell hands on as two characters."""
    return "\t" if text == r"\t" else text


@dataclasses.dataclass(frozen=True, kw_only=True)
class CsvFlags:
    """How CSV files are written."""

    column_names: tuple[str, ...] = flag(
        "CSV without a header line: names of its columns", (), parse_names, group="Input", metavar="A,B,..."
    )
    csv_delimiter: str = flag(
        r"CSV: delimiter between fields, \t for a tab; default: a comma, in .tsv files a tab", "", parse_mark,
        group="Input", metavar="CHAR",
    )  # fmt: skip
    csv_quote_char: str = flag("CSV: quote character; may be empty", '"', group="Input", metavar="CHAR")
    allow_quoted_newlines: bool = flag(
        "CSV: quoted values may contain newlines (each file is then read by one worker)", False, parse_bool,
        group="Input",
    )  # fmt: skip
    csv_encoding: str = flag(
        "CSV: encoding of the files, such as cp1252 or utf-16 (one worker then reads each file); default: UTF-8", "",
        group="Input", metavar="ENCODING",
    )  # fmt: skip
    csv_skip_lines: int = flag(
        "CSV: how many lines come before the header, or the first row, of each file", 0, int, group="Input",
        metavar="N",
    )  # fmt: skip
    rename_duplicate_columns: bool = flag(
        "CSV: number names that the header has twice (a, a_2), and name columns that have none (column_3)", False,
        parse_bool, group="Input",
    )  # fmt: skip
    null_values: tuple[str, ...] = flag(
        "CSV: texts that stand for no value in columns of numbers, dates and the like, besides the empty field",
        (),
        parse_names,
        group="Input",
        metavar="NA,N/A,...",
        repeated=True,
    )
    null_strings: bool = flag(
        "CSV: an empty field, and the texts of --null_values, stand for no value in columns of strings too", False,
        parse_bool, group="Input",
    )  # fmt: skip

    def check_csv(self) -> None:
        """Checks the flags of CSV.

        Raises:
          UsageError: a value is invalid.
        """
        ascii_only = "one ASCII character that ends no line"
        if self.csv_delimiter and not _is_mark(self.csv_delimiter):
            raise UsageError(f"--csv_delimiter {self.csv_delimiter!r}: it is {ascii_only}, or \\t for a tab")
        if self.csv_quote_char and not _is_mark(self.csv_quote_char):
            raise UsageError(f"--csv_quote_char {self.csv_quote_char!r}: it is {ascii_only}, or empty")
        if (self.csv_delimiter or ",") == self.csv_quote_char:
            raise UsageError(
                f"--csv_delimiter and --csv_quote_char are both {self.csv_quote_char!r}; give different ones"
            )
        check_number(self, "csv_skip_lines", whole=True)
        _check_encoding(self.csv_encoding)


def _check_encoding(name: str) -> None:
    try:
        known = not name or codecs.lookup(name)._is_text_encoding
    except LookupError:
        known = False
    if not known:
        raise UsageError(f"--csv_encoding {name}: there is no such encoding; cp1252, latin-1 and utf-16 are some")


def _is_mark(text: str) -> bool:
    """Whether CSV can have this between fields or around them: the parser looks for single bytes."""
    return len(text) == 1 and text.isascii() and text not in "\r\n"
