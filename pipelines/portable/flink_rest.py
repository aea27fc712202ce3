"""Asks Flink's REST API for jobs, and ends them: a job server that is asked to cancel a job only ceases to follow it.

https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/
"""

import http.client
import json
import logging
import urllib.request
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

from sluice.models.errors import UsageError

_LOG = logging.getLogger(__name__)

_CALL_SECS = 10.0
_LIVING = ("CREATED", "INITIALIZING", "RUNNING", "RESTARTING", "FAILING", "RECONCILING", "SUSPENDED")
# What a call raises that is not answered, or not by Flink.
CALL_ERRORS = (OSError, ValueError, http.client.HTTPException)


def master_of(options: PipelineOptions) -> str:
    """Returns the address of a cluster's REST API; "": none is named."""
    master = str(options.view_as(FlinkRunnerOptions).flink_master or "").strip()
    if not master or master.startswith("["):
        return ""
    return master if "://" in master else f"http://{master}"


def check_name(master: str, name: str) -> None:
    """Checks that no job of a name lives: jobs are ended by their name, and the end of one would be that of both.

    Raises:
      UsageError: there is one. Nothing is raised if Flink does not tell.
    """
    if not master:
        return
    try:
        living = _living(master, name)
    except CALL_ERRORS as error:
        _LOG.debug("Flink at %s does not tell its jobs: %s", master, error)
        return
    if living:
        raise UsageError(
            f"--job_name {name}: Flink at {master} runs a job of this name ({living[0]}), and jobs are ended by their "
            "name; drain that one first, give another name, or leave the flag out"
        )


def cancel_jobs(master: str, name: str) -> list[str]:
    """Cancels the jobs of a name that live; returns their ids.

    Raises:
      OSError, ValueError, HTTPException: see CALL_ERRORS.
    """
    living = _living(master, name)
    for each in living:
        _call(f"{master}/jobs/{each}?mode=cancel", "PATCH")
    return living


def _living(master: str, name: str) -> list[str]:
    jobs = _call(f"{master}/jobs/overview", "GET").get("jobs", [])
    return [str(job["jid"]) for job in jobs if job.get("name") == name and job.get("state") in _LIVING]


def _call(url: str, method: str) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=_CALL_SECS) as answer:
        return json.loads(answer.read() or b"{}")
