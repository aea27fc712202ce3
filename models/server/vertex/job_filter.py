"""Which jobs `list` answers: the filter, the pages, the fields."""

import re
from collections.abc import Callable, Mapping

from google.cloud.aiplatform_v1 import types
from google.protobuf import field_mask_pb2

from sluice.models.server.status import invalid
from sluice.models.server.vertex.wire import Request

Test = Callable[[types.BatchPredictionJob], bool]

# One comparison: https://google.aip.dev/160, as far as the comments of job_service.proto promise it for jobs.
_LABEL = re.compile(r'labels\.([\w-]+)\s*(=|:)\s*("?)([\w*-]*)\3')
_FIELD = re.compile(r'(display_name|state)\s*(=|!=)\s*"([^"]*)"')
_MAX_PAGE = 100


def read_filter(text: str) -> Test:
    """Returns the test that a filter is: comparisons of labels, state and display_name, joined by AND.

    Raises:
      StatusError: it is none that is known.
    """
    tests = [_comparison(part.strip()) for part in re.split(r"\s+AND\s+", text) if text.strip()]
    return lambda job: all(test(job) for test in tests)


def _comparison(text: str) -> Test:
    if match := _LABEL.fullmatch(text):
        name, sign, _, value = match.groups()
        if sign == ":" and value == "*":
            return lambda job: name in job.labels
        return lambda job: job.labels.get(name) == value
    if match := _FIELD.fullmatch(text):
        field, sign, value = match.groups()
        return lambda job: (_shown(job, field) == value) == (sign == "=")
    raise invalid(f"Invalid filter: {text!r}")


def _shown(job: types.BatchPredictionJob, field: str) -> str:
    return job.state.name if field == "state" else job.display_name


def page_of(jobs: list[types.BatchPredictionJob], request: Request) -> types.ListBatchPredictionJobsResponse:
    """Returns one page of the jobs that a request asks for, the newest first.

    Raises:
      StatusError: the filter, size, token or mask is wrong.
    """
    query = request.query
    size, start = _number(query, "pageSize"), _number(query, "pageToken")
    size = min(size or _MAX_PAGE, _MAX_PAGE)
    test = read_filter(query.get("filter", ""))
    found = sorted((job for job in jobs if test(job)), key=lambda job: job.create_time, reverse=True)
    mask = _mask(query.get("readMask", ""))
    return types.ListBatchPredictionJobsResponse(
        batch_prediction_jobs=[_masked(job, mask) for job in found[start : start + size]],
        next_page_token=str(start + size) if start + size < len(found) else "",
    )


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name) or "0"
    if not text.isdecimal():
        raise invalid(f"Invalid value for {name}: {text!r}")
    return int(text)


def _mask(text: str) -> field_mask_pb2.FieldMask:
    mask = field_mask_pb2.FieldMask()
    if text == "*":
        return mask
    try:
        mask.FromJsonString(text)
    except ValueError as error:
        raise invalid(f"Invalid value for readMask: {error}") from error
    if not mask.IsValidForDescriptor(types.BatchPredictionJob.pb(types.BatchPredictionJob()).DESCRIPTOR):
        raise invalid(f"Invalid value for readMask: {text!r}")
    return mask


def _masked(job: types.BatchPredictionJob, mask: field_mask_pb2.FieldMask) -> types.BatchPredictionJob:
    if not mask.paths:
        return job
    kept = types.BatchPredictionJob()
    mask.MergeMessage(types.BatchPredictionJob.pb(job), types.BatchPredictionJob.pb(kept))
    return kept
