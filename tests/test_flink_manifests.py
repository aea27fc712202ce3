"""deploy/flink/ and its image: they agree with each other, with what is pinned, and with the flags that there are.

The manifests were checked once against the operator's schema and Kubernetes' own (docs/flink.md).
"""

import re
from typing import Any

import pytest
import yaml
from apache_beam.options.pipeline_options import FlinkRunnerOptions

from tests.support.pages.reader import check_flags
from tests.support.paths import ROOT
from tests.test_dockerfile import STAGES, Step, pins_of

FOLDER = ROOT / "deploy" / "flink"
JOBS = [path.name.removesuffix("-job.yaml") for path in sorted(FOLDER.glob("*-job.yaml"))]
FLINK = "1.19"

VOLUME_CLAIM, CLUSTER, POLICY = list(yaml.safe_load_all((FOLDER / "cluster.yaml").read_text()))
TASK_MANAGER = CLUSTER["spec"]["taskManager"]["podTemplate"]["spec"]
(WORKER_POOL,) = TASK_MANAGER["containers"]


def pod_of(job: str) -> dict[str, Any]:
    """Returns the pod that submits a job."""
    spec: dict[str, Any] = job_of(job)["template"]["spec"]
    return spec


def job_of(job: str) -> dict[str, Any]:
    """Returns the specification of the Job that submits a job."""
    spec: dict[str, Any] = yaml.safe_load((FOLDER / f"{job}-job.yaml").read_text())["spec"]
    return spec


def flags_of(job: str) -> dict[str, str]:
    (container,) = pod_of(job)["containers"]
    return dict(flag.split("=", 1) for flag in container["args"])


def test_the_version_of_flink_is_one_that_beam_is_published_for() -> None:
    assert FLINK in FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    assert CLUSTER["spec"]["image"] == f"flink:{FLINK}"
    assert CLUSTER["spec"]["flinkVersion"] == f"v{FLINK.replace('.', '_')}"


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_submitted_with_flags_that_exist(job: str) -> None:
    (container,) = pod_of(job)["containers"]
    assert container["command"] == ["sluice", job]
    # A job server that is named would be asked for its options.
    check_flags([job, *(flag for flag in container["args"] if not flag.startswith("--job_endpoint"))])


@pytest.mark.parametrize("job", JOBS)
def test_a_job_finds_the_cluster_and_its_workers(job: str) -> None:
    flags = flags_of(job)
    master = f"{CLUSTER['metadata']['name']}-rest:8081"
    assert (flags["--runner"], flags["--flink_master"]) == ("FlinkRunner", master)
    (port,) = WORKER_POOL["ports"]
    assert flags["--environment_type"] == "EXTERNAL"
    assert flags["--environment_config"] == f"localhost:{port['containerPort']}"
    (server,) = pod_of(job)["initContainers"]
    assert f"--flink-master={master}" in server["args"] and flags["--job_endpoint"] == "localhost:8099"


@pytest.mark.parametrize("job", JOBS)
def test_the_images_are_of_the_versions_that_are_pinned(job: str) -> None:
    (server,), (container,) = pod_of(job)["initContainers"], pod_of(job)["containers"]
    assert server["image"] == f"apache/beam_flink{FLINK}_job_server:{pins_of('constraints.txt')['apache-beam']}"
    (version,) = re.findall(r'version="([\d.]+)"', (ROOT / "setup.py").read_text())
    assert container["image"] == WORKER_POOL["image"] == f"REGISTRY/sluice-flink:{version}"


@pytest.mark.parametrize("job", JOBS)
def test_task_managers_read_the_artifacts_of_the_job_server(job: str) -> None:
    """Beam's job server writes them to its own disk unless it is told otherwise; then no worker starts."""
    claim = {"persistentVolumeClaim": {"claimName": VOLUME_CLAIM["metadata"]["name"]}}
    both = CLUSTER["spec"]["podTemplate"]["spec"]
    for pod, container in (both, both["containers"][0]), (pod_of(job), pod_of(job)["initContainers"][0]):
        (volume,), (mount,) = pod["volumes"], container["volumeMounts"]
        assert volume == {"name": mount["name"]} | claim
    assert f"--artifacts-dir={mount['mountPath']}/artifacts" in pod_of(job)["initContainers"][0]["args"]
    assert VOLUME_CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    kept = [value for value in CLUSTER["spec"]["flinkConfiguration"].values() if value.startswith("file://")]
    assert len(kept) == 3 and all(value.startswith(f"file://{mount['mountPath']}/") for value in kept)


def test_the_image_is_a_worker_pool_of_the_user_that_flink_runs_as() -> None:
    stage = STAGES["flink"]
    assert stage.base == "sluice" and Step("CMD", '["--worker_pool"]') in stage.steps
    assert WORKER_POOL["args"] == ["--worker_pool"]
    (user,) = (step.text for step in stage.steps if step.keyword == "USER")
    assert CLUSTER["spec"]["podTemplate"]["spec"]["securityContext"] == {"fsGroup": int(user)}
    for job in JOBS:
        assert pod_of(job)["securityContext"] == {"fsGroup": int(user)}
        assert pod_of(job)["initContainers"][0]["securityContext"] == {"runAsUser": int(user)}


def test_a_job_is_submitted_once() -> None:
    """Twice on one subscription, or one output, would be two jobs."""
    for job in JOBS:
        assert job_of(job)["backoffLimit"] == 0
        assert pod_of(job)["restartPolicy"] == "Never"


def test_only_the_cluster_itself_reaches_a_worker_pool() -> None:
    """The operator labels its pods with the name of the cluster."""
    cluster = {"matchLabels": {"app": CLUSTER["metadata"]["name"]}}
    assert POLICY["spec"]["podSelector"] == cluster and POLICY["spec"]["policyTypes"] == ["Ingress"]
    among, rest, metrics = POLICY["spec"]["ingress"]
    assert among == {"from": [{"podSelector": cluster}]}
    assert rest["ports"] == [{"port": 8081}] and metrics == {"ports": [{"port": 9249}]}
    assert CLUSTER["spec"]["flinkConfiguration"]["metrics.reporter.prom.port"] == "9249"
    for job in JOBS:
        assert rest["from"][0] == {"podSelector": {"matchLabels": job_of(job)["template"]["metadata"]["labels"]}}
