"""Ends jobs by Flink's REST API: a job server that is asked to cancel a job of a cluster only ceases to follow it.

https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/
"""

import json
import urllib.request
from typing import Any

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions

_CALL_SECS = 10.0
_LIVING = ("CREATED", "INITIALIZING", "RUNNING", "RESTARTING", "FAILING", "RECONCILING", "SUSPENDED")


def master_of(options: PipelineOptions) -> str:
    """Returns the address of a cluster's REST API; "": none is named."""
    master = str(options.view_as(FlinkRunnerOptions).flink_master or "").strip()
    if not master or master.startswith("["):
        return ""
    return master if "://" in master else f"http://{master}"


def cancel_jobs(master: str, name: str) -> list[str]:
    """Cancels the jobs of a name that live; returns their ids.

    Raises:
      OSError: the API cannot be reached, or refuses.
    """
    jobs = _call(f"{master}/jobs/overview", "GET").get("jobs", [])
    living = [str(job["jid"]) for job in jobs if job.get("name") == name and job.get("state") in _LIVING]
    for each in living:
        _call(f"{master}/jobs/{each}?mode=cancel", "PATCH")
    return living


def _call(url: str, method: str) -> dict[str, Any]:
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=_CALL_SECS) as answer:
        return json.loads(answer.read() or b"{}")
