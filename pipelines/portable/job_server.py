"""Asks a job server which options it has: the proof that one answers. No runner of Beam is imported here."""

import logging
from collections.abc import Sequence

import grpc
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc

from sluice.models.errors import UsageError
from sluice.pipelines.portable.words import grpc_words

_LOG = logging.getLogger(__name__)

# How long a job server may take to answer. One that is being started needs some seconds.
ANSWER_SECS = 60.0
# After this the user is told what is waited for.
_PATIENT_SECS = 2.0
# A job server within this process: it need not be asked.
EMBEDDED = "embed"


def ask_options(endpoint: str, secs: float = ANSWER_SECS) -> Sequence[api.PipelineOptionDescriptor]:
    """Returns the options that a job server declares: the proof that one answers.

    Args:
      endpoint: HOST:PORT.
      secs: how long it may take.

    Raises:
      UsageError: none answers.
    """
    with grpc.insecure_channel(endpoint, [("grpc.max_receive_message_length", -1)]) as channel:
        try:
            _wait_ready(channel, endpoint, secs)
            found = beam_job_api_pb2_grpc.JobServiceStub(channel).DescribePipelineOptions(
                api.DescribePipelineOptionsRequest(), timeout=secs
            )
        except grpc.FutureTimeoutError as error:
            raise UsageError(
                f"--job_endpoint {endpoint}: no job server answers there within {secs:g} s; start it, or give the "
                "HOST:PORT at which it takes jobs (Flink's job server: 8099; Prism: 8073)"
            ) from error
        except grpc.RpcError as error:
            raise UsageError(
                f"--job_endpoint {endpoint}: what answers there is no job server of Beam, or it fails: "
                f"{grpc_words(error)}; give the HOST:PORT at which one takes jobs"
            ) from error
        return list(found.options)


def _wait_ready(channel: grpc.Channel, endpoint: str, secs: float) -> None:
    ready = grpc.channel_ready_future(channel)
    try:
        ready.result(timeout=min(secs, _PATIENT_SECS))
    except grpc.FutureTimeoutError:
        if secs <= _PATIENT_SECS:
            raise
        _LOG.info("Waiting up to %g s for a job server at %s", secs, endpoint)
        ready.result(timeout=secs - _PATIENT_SECS)
