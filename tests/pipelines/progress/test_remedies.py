"""What helps against a reason, as flags to paste; the messages are those that the readers really make."""

import dataclasses
import shlex
from collections.abc import Sequence

import pyarrow as pa
import pytest

from sluice.models.batching.mini_batch import RowFailure
from sluice.models.errors import BadInput
from sluice.models.signature import Signature, TensorSpec
from sluice.models.tensors.binding import bind
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.progress.remedies import remedy_for, with_inputs
from sluice.transforms.core.failures import Failure
from sluice.transforms.core.reasons import Group, Reasons
from sluice.transforms.decode.csv import decode_csv
from sluice.transforms.decode.lines import line_block
from sluice.transforms.decode.spec import InputSpec

NO_FILE = "column 'image' names 'x is not.jpg', and it cannot be read: "
NAMED = "; if it stands for no value, name it in --null_values"


def group_of(failures: Sequence[Failure]) -> Group:
    reasons = Reasons()
    for each in failures:
        reasons.add(each.stage, each.error_type, each.error_message, each.origin)
    (group,) = reasons.top()
    return group


def told(stage: str, error_type: str, *messages: str) -> str:
    made = remedy_for(group_of([Failure(stage, error_type, text, "o") for text in messages]))
    return "" if made is None else str(made)


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        (f"column 'age': 'NA' is not int64{NAMED}", "--null_values NA --column_defaults age=VALUE"),
        ("column 'a b': 'n/a' is not float32", "--null_values n/a --column_defaults 'a b=VALUE'"),
        (f"column 'age': [withheld] is not int64{NAMED}", "--null_values TEXT"),
        ("column 'age' is null and the model has no default for it (int64)", "--column_defaults age=VALUE"),
        ("column 'a,b' is null and the model has no default for it (int64)", r"--column_defaults 'a\,b=VALUE'"),
        ("column 'a,b': 'NA' is not int64", r"--null_values NA --column_defaults 'a\,b=VALUE'"),
        ("column 'x': '1.5' is not int64, ...; declare the column FLOAT64 in --input_schema", "--input_schema FILE"),
        (
            "column 'who': no object of the first rows has the key 'age'; declare it in --input_schema FILE",
            "--input_schema FILE",
        ),
        ("expected 5 fields, found 7", "--csv_delimiter TEXT"),
        ("the line is not valid UTF-8: byte 0xe9 at place 3", "--csv_encoding cp1252"),
        ("a quote is opened and not closed", "--allow_quoted_newlines"),
        ("quotes are left open at a line's end in this part of the file", "--allow_quoted_newlines"),
        ("the row has a value 'y', and so has the model; give --output_prefix TEXT", "--output_prefix TEXT"),
    ],
)
def test_flags_to_paste(message: str, flags: str) -> None:
    made = remedy_for(group_of([Failure("decode", "InvalidRow", message, "o")]))
    assert made is not None and made.flags == flags
    names = {word.removeprefix("--") for word in shlex.split(flags) if word.startswith("--")}
    assert names <= set(BatchOptions.__dataclass_fields__), "there are such flags"


def test_all_texts_that_stand_for_no_value_are_one_flag() -> None:
    texts = [f"column 'age': {text!r} is not int64" for text in ("NA", "?", "NA", "abc", " N/A")]
    assert told("decode", "InvalidRow", *texts).startswith("--null_values 'NA,?,N/A' --column_defaults age=VALUE: ")


def test_a_default_is_given_to_the_inputs_that_take_the_column() -> None:
    """Of a column under another name: --column_defaults knows inputs only."""
    mapped = (("bill_length", "bill.length"), ("length", "bill.length"), ("depth", "bill.depth"))
    failed = group_of([Failure("decode", "InvalidRow", f"column 'bill.length': 'NA' is not float{NAMED}", "o")])
    (known,) = with_inputs([failed], mapped)
    made = remedy_for(known)
    assert made is not None
    assert made.flags == "--null_values NA --column_defaults bill_length=VALUE,length=VALUE"
    bound = group_of([Failure("bind", "InvalidRow", "column 'depth' is null", "o")])
    (same,) = with_inputs([bound], mapped)
    assert str(remedy_for(same)).startswith("--column_defaults depth=VALUE: ")


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        ('{"Sepal.Length": 5.1, "x": 1}', "--map Sepal_Length=Sepal.Length"),
        ('{"sepal length": 5.1, "note": "cut ', "--map 'Sepal_Length=sepal length'"),
        ('{"Sepal_Length": null, "Sepal.Length": 1}', "--column_defaults Sepal_Length=VALUE"),
        ('{"Sepal.Length": 1, "sepal_length": 2}', "--column_defaults Sepal_Length=VALUE"),
        ('{"length": 1}', "--column_defaults Sepal_Length=VALUE"),
        ("5.1,2", "--column_defaults Sepal_Length=VALUE"),
    ],
)
def test_a_value_under_a_name_that_is_spelt_otherwise_is_mapped(payload: str, flags: str) -> None:
    """As the launch check of a file says it: of messages the names are not known before they come."""
    text = "column 'Sepal_Length' is null and the model has no default for it (float32)"
    made = remedy_for(dataclasses.replace(group_of([Failure("bind", "InvalidRow", text, "o")]), payload=payload))
    assert made is not None and made.flags == flags
    assert "--map" in str(made), "or if it is spelt quite differently"


@pytest.mark.parametrize(
    ("stage", "error_type", "message", "words"),
    [
        ("predict", "Unavailable", "gone", "sluice replay"),
        ("predict", "BadInput", "not isolated: one or more of 7 rows called together; bad", "--max_batch_size 1: "),
        ("predict", "BadInput", "x must not be negative", "the model refuses these values"),
        ("predict", "Odd", "x", "look at the example"),
        ("read", "EOFError", "cut off", "get it anew"),
        ("read", "TooManyDeliveries", "delivered 7 times", "replay one alone"),
        ("bind", "InvalidRow", "column 'age': 300 does not fit int8", "not of the model's type"),
        ("read", "BadPath", f"{NO_FILE}it is relative: give the directory", "--read_paths_root DIR: "),
        (
            "read",
            "BadPath",
            f"{NO_FILE}a message may not name a file",
            "--read_paths_root DIR: if such files are meant",
        ),
        ("read", "BadPath", f"{NO_FILE}it leads out of --read_paths_root /d", "look at what writes these rows"),
        ("read", "FileTooLarge", f"{NO_FILE}the file has more than 9 bytes", "--max_batch_bytes BYTES: "),
        ("read", "FileNotFoundError", f"{NO_FILE}No such file or directory", "put the file there, or mend its path"),
        ("write", "InsertError", "no such field", "the destination refuses"),
    ],
)
def test_what_to_do_without_a_flag(stage: str, error_type: str, message: str, words: str) -> None:
    assert words in told(stage, error_type, message)


def test_nothing_is_made_up() -> None:
    assert told("decode", "InvalidRow", "something else") == ""


def test_what_a_model_says_is_not_taken_for_words_of_ours() -> None:
    failure = RowFailure.of(BadInput("column 'age' is null; expected 2 fields, found 3; give --output_prefix"))
    assert told("predict", failure.type, failure.message).startswith("the model refuses")


def test_the_words_of_binding_are_known() -> None:
    ends = TensorSpec("age", "int8", (None,), ("age:0",)), TensorSpec("y", "float32", (None,), ("y:0",))
    signature = Signature("serving_default", "tensorflow/serving/predict", ends[:1], ends[1:])
    (null,) = bind(pa.RecordBatch.from_pydict({"age": pa.array([None], pa.int64())}), signature).errors.values()
    (large,) = bind(pa.RecordBatch.from_pydict({"age": [300]}), signature).errors.values()
    assert told("bind", "InvalidRow", null).startswith("--column_defaults age=VALUE: ")
    assert "not of the model's type" in told("bind", "InvalidRow", large)


@pytest.mark.parametrize("row", [None, [1, None], [1, 2, 3], [[1], [2, 3]], "x"])
def test_what_does_not_fit_a_list_has_no_default(row: object) -> None:
    """The default of a column stands for a null in a column of single values only."""
    ends = TensorSpec("age", "int8", (None, 2), ("age:0",)), TensorSpec("y", "float32", (None,), ("y:0",))
    signature = Signature("serving_default", "tensorflow/serving/predict", ends[:1], ends[1:])
    kind = pa.list_(pa.int64()) if row is None else None
    (text,) = bind(pa.RecordBatch.from_pydict({"age": pa.array([row], kind)}), signature).errors.values()
    made = told("bind", "InvalidRow", text)
    assert "mend what writes these rows" in made and "or --map INPUT=COLUMN" in made
    assert "--column_defaults" not in made


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        (b"NA,a", "--null_values NA --column_defaults age=VALUE"),
        (b"1,2,3", "--csv_delimiter TEXT"),
        (b"1,\xff", "--csv_encoding cp1252"),
        (b'1,"a', "--allow_quoted_newlines"),
    ],
)
def test_the_words_of_csv_are_known(line: bytes, flags: str) -> None:
    spec = InputSpec("csv", (("age", pa.int64()), ("name", pa.string())))
    decoded = decode_csv(line_block(line + b"\n", 0, b"", b","), ("age", "name"), spec, "f.csv#byte=")
    made = remedy_for(group_of(decoded.failures))
    assert made is not None and made.flags == flags
