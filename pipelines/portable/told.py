"""What a job server tells of a job's metrics while it runs, and at its end."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.runners.portability.portable_runner import PipelineResult, PortableMetrics

_LOG = logging.getLogger(__name__)

_CALL_SECS = 10.0


def ask_metrics(result: PipelineResult) -> Mapping[str, Sequence[Any]]:
    """Returns the metrics of a portable job, in the form of Beam's `query`; {}: the job server does not tell them.

    By hand, because the result keeps its first answer, and waits for one without end.
    """
    request, call = api.GetJobMetricsRequest(job_id=result._job_id), result._job_service.GetJobMetrics
    try:
        remote = isinstance(call, grpc.UnaryUnaryMultiCallable)
        found: Mapping[str, Sequence[Any]] = PortableMetrics(
            call(request, timeout=_CALL_SECS) if remote else call(request)
        ).query()
        return found
    except Exception as error:  # noqa: BLE001  a runner may not know them yet, or at all: then they are not known here
        _LOG.debug("No metrics: %s", error)
        return {}
