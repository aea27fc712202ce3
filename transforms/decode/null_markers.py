"""The texts by which other programs write that there is no value, and what --null_values makes of them."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

# What R, pandas, SQL, spreadsheets and people write.
KNOWN = (
    *("NA", "N/A", "n/a", "na", "#N/A", "<NA>", "NULL", "Null", "null", "None", "none", "nil", "NaN", "nan", "NaT"),
    *("\\N", "?", "-", "--", ".", "..", "*", "missing", "Missing", "unknown", "Unknown"),
)


def with_nulls(texts: pa.Array, null_texts: Sequence[str]) -> pa.Array:
    """Returns texts (string or binary) with a null for each of `null_texts`."""
    found = pc.is_in(texts, value_set=pa.array(null_texts).cast(texts.type))
    return pc.if_else(found, pa.scalar(None, texts.type), texts)


def with_spaced_nulls(texts: pa.Array, null_texts: Sequence[str]) -> pa.Array:
    """Returns texts (string or binary) with a null for each of `null_texts`, whatever white space is around it."""
    found = pc.is_in(
        pc.utf8_trim_whitespace(texts.cast(pa.string())),
        value_set=pa.array(sorted({text.strip() for text in null_texts}), pa.string()),
    )
    return pc.if_else(found, pa.scalar(None, texts.type), texts)


def hint(text: str) -> str:
    """Returns the end of the error for a text that is no value of its column; "" if it does not look like a marker."""
    return "; if it stands for no value, name it in --null_values" if text.strip() in KNOWN else ""
