"""What the launcher of a job finds out about an endpoint of Vertex AI, and what of it workers get."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sluice.models.cache import open_scheduler
from sluice.models.errors import UsageError
from sluice.models.server.vertex.faults import VertexFaults
from sluice.pipelines.options.batch import BatchOptions
from sluice.pipelines.plan.batch_job import plan_batch
from sluice.pipelines.plan.model import without_account
from tests.support.fakes import PATIENCE_SECS
from tests.support.vertex.service import VertexService, vertex_service


@pytest.fixture(scope="module")
def service(cases: Callable[[str], str]) -> Iterator[VertexService]:
    with vertex_service({"picky": cases("picky")}) as running:
        yield running


def options(service: VertexService, directory: Path, **more: Any) -> BatchOptions:
    (directory / "in.csv").write_text("x\n4\n9\n")
    given = {"model": service.endpoint_uri("picky"), "vertex_endpoint": service.url, **more}
    return BatchOptions(input=f"{directory}/in.csv", output=f"{directory}/out.csv", **given)


def test_workers_ask_nothing_but_predictions(service: VertexService, tmp_path: Path) -> None:
    plan = plan_batch(options(service, tmp_path))
    assert plan.version == 1
    service.calls.clear()
    scheduler = open_scheduler(pickle.loads(pickle.dumps(plan.recipe)))
    prediction = scheduler.submit({"x": np.array([4, 9], np.float32)}).future.result(PATIENCE_SECS)
    scheduler.close()
    assert (prediction.arrays["root"].tolist(), prediction.versions) == ([2.0, 3.0], ((2, 1),))
    assert [call.method for call in service.calls.all()] == ["rawPredict"]


def test_the_deadline_of_a_call_is_that_of_the_kind_unless_the_user_gives_one(
    service: VertexService, tmp_path: Path
) -> None:
    def deadline(**more: Any) -> float:
        scheduler = open_scheduler(plan_batch(options(service, tmp_path, **more)).recipe)
        scheduler.close()
        return scheduler.options.call_timeout_secs

    assert deadline() == 65.0, "a shared endpoint's, and a grace"
    assert deadline(rpc_timeout_secs=30.0) == 35.0


def test_an_account_is_impersonated_here_and_not_by_workers(service: VertexService, tmp_path: Path) -> None:
    recipe = plan_batch(options(service, tmp_path), account="a@example.com").recipe
    assert recipe.model.endpoint.google_account == "a@example.com"
    assert without_account(recipe).model.endpoint.google_account == ""
    assert without_account(recipe).spec == recipe.spec


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("PERMISSION_DENIED", "permission aiplatform.endpoints.get .*--signature_from"),
        ("UNAUTHENTICATED", "refuses to tell of projects/p/locations/l/endpoints"),
        ("INTERNAL", "does not tell of projects/p/locations/l/endpoints"),
    ],
)
def test_a_launch_that_may_not_look(service: VertexService, tmp_path: Path, code: str, words: str) -> None:
    before = vars(service.faults).copy()
    vars(service.faults).update(vars(VertexFaults(methods={"getEndpoint"}, next_errors=[code])))
    try:
        with pytest.raises(UsageError, match=words):
            plan_batch(options(service, tmp_path))
    finally:
        vars(service.faults).update(before)
