"""The table of error codes: every code has its meaning, and no environment's fault is blamed on rows."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from sluice.models.endpoints.errors import error_of
from sluice.models.error_table import BY_NAME, CODES, Code, http_status, kind_here
from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    CallError,
    ModelFault,
    ModelLost,
    OutOfMemory,
    Refused,
    ServerFault,
    TimedOut,
    Unavailable,
)
from sluice.models.interface import Outputs
from sluice.models.saved_model.reasons import TensorFlowError, call_error
from sluice.models.tensors.binding import Feeds
from tests.support.fakes import FakeModel, double, x_feeds
from tests.support.scheduling import outcome, scheduling


def test_the_table_has_every_code_of_grpc_under_its_number() -> None:
    codes = {code.name: code.value[0] for code in grpc.StatusCode if code is not grpc.StatusCode.OK}
    assert {code.name: code.number for code in CODES} == codes


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_both_kinds_of_backend_read_the_table(code: Code) -> None:
    here = call_error(TensorFlowError(code.number, "why"))
    assert type(here) is code.here
    assert str(here) == ("why" if code.here is BadInput else f"{code.name}: why")
    assert type(error_of(code.name, "why", "models:8500")) is code.served


def test_the_rows_are_blamed_by_the_same_codes_everywhere() -> None:
    assert {code.name for code in CODES if code.here is BadInput} == {"INVALID_ARGUMENT", "OUT_OF_RANGE"}
    assert all((code.here is BadInput) == (code.served is BadInput) for code in CODES)
    for code in CODES:  # all others repeat the call, halve it, ask whether the model is at fault, or fail the bundle
        for kind in (code.here, code.served):
            assert issubclass(kind, BadInput | BatchTooLarge | ModelFault | Unavailable | Refused)


def test_statuses_of_http_stand_for_codes_of_the_table() -> None:
    for number in range(200, 600):
        code, alone = http_status(number)
        assert not issubclass(alone, BadInput), number
        served = BY_NAME[code].served
        agree = issubclass(alone, served) or number == 413
        assert agree or alone is Refused, "what may pass by one meaning may pass by the other"
    assert http_status(418) == ("UNIMPLEMENTED", Refused) and http_status(599) == ("INTERNAL", ServerFault)
    assert http_status(504) == ("DEADLINE_EXCEEDED", TimedOut), "as TF Serving writes it"


@pytest.mark.parametrize(
    ("number", "text", "kind"),
    [
        (9, "Table not initialized.\n\t [[{{node hash_table_Lookup}}]]", ModelLost),
        (9, "Could not find variable dense/bias. This could mean that the variable has been deleted.", ModelLost),
        (1, "Session has been closed.", ModelLost),
        (13, "failed to memcopy into scratch buffer: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access", ModelLost),
        (2, "no CUDA-capable device is detected", ModelLost),
        (13, "Failed to load in-memory CUBIN: CUDA_ERROR_OUT_OF_MEMORY: out of memory", OutOfMemory),
        (8, "OOM when allocating tensor with shape[8192,4096]", OutOfMemory),
        (3, "out of memory cells: 3 >= 2", BadInput),
        (13, "cuDNN launch failure : input shape ([64,224,224,64])", ModelFault),
        (99, "a code of the future", ModelFault),
    ],
)
def test_texts_of_tensorflow(number: int, text: str, kind: type[CallError]) -> None:
    assert kind_here(number, text) is kind


def breaking(error: CallError, calls: int) -> Callable[[Feeds], Outputs]:
    """Returns a model that answers one call, fails so many whatever their rows, and then answers."""
    number = 0

    def answer(feeds: Feeds) -> Outputs:
        nonlocal number
        number += 1
        if 1 < number <= 1 + calls:
            raise error
        return double(feeds)

    return answer


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_no_row_is_blamed_while_the_model_fails_whatever_the_rows(code: Code, rows: int, remote: bool) -> None:
    model = FakeModel(breaking((code.served if remote else code.here)("it is so"), calls=40))
    model.remote = remote
    with scheduling(model, sleep=lambda secs: None) as scheduler:
        assert outcome(scheduler.submit(x_feeds(7))).arrays["y"].tolist() == [14]
        prediction = outcome(scheduler.submit(x_feeds(*range(rows))))
        assert prediction.arrays["y"].tolist() == [2 * x for x in range(rows)]
