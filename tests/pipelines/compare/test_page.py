"""The page of a comparison: each chart has its numbers, and a comparison with little in it still makes a page."""

import dataclasses

import pytest

from sluice.pipelines.compare.claims import claims
from sluice.pipelines.compare.found import Found
from sluice.pipelines.compare.page import to_page
from sluice.pipelines.compare.subject import Point
from sluice.pipelines.report.page import Page, render_page
from tests.pipelines.compare.test_answer import WORKER, answered, as_result, found_of, stream


def page() -> Page:
    found = found_of(
        streams=[stream(500, 2), stream(1000, 3), stream(400, 1, mini_batches=False)],
        searched={Point(): [100.0, 110.0], Point(64): [50.0], Point(0, 2): [90.0]},
        stages={"read": 1.0, "bind": 0.5, "call": 4.0, "encode": 0.5, "write": 0.1},
    )
    result = dataclasses.replace(as_result(answered(found, rows_per_month=10**9, target_qps=3000)), target_p99_ms=20.0)
    return to_page(result)


def test_every_chart_has_its_numbers() -> None:
    sections = {section.title: section for section in page().sections}
    assert len(sections) == len(page().sections) == 13
    charts = [section for section in sections.values() if section.chart]
    assert len(charts) == 5 and all(section.data and section.data.rows and section.alt for section in charts)
    sizes = sections["Throughput by batch size"].data
    assert sizes is not None and [row[0] for row in sizes.rows] == [64, 4096], "calls in flight are no batch sizes"
    stages = sections["Cost of a row by stage"].data
    assert stages is not None
    assert dict(zip(stages.column("stage"), stages.column("cpu_us"), strict=True))[
        "all else of the job"
    ] == pytest.approx(1.9)
    latency = sections["Mini-batches: latency by rate"].data
    assert latency is not None and latency.column("rate") == [500, 1000] and latency.column("p99_low") == [5.0, 7.5]
    volumes = sections["Cost by monthly volume"].data
    assert volumes is not None and len(set(volumes.column("way"))) == 3
    workers = sections["Workers for what is wanted"].data
    assert workers is not None and [row[:3] for row in workers.rows] == [("in the worker", "--target_qps", 3)]
    verdicts = sections["Four claims, for this model on this machine"].data
    assert verdicts is not None and len(verdicts.rows) == 4


def test_batch_sizes_are_drawn_also_where_the_calls_in_flight_are_given() -> None:
    found = found_of(searched={Point(0, 8): [100.0], Point(64, 8): [50.0]}, best=Point(64, 8))
    sections = {section.title: section.data for section in to_page(as_result(answered(found))).sections}
    sizes = sections["Throughput by batch size"]
    assert sizes is not None and [row[0] for row in sizes.rows] == [64, 4096]


def test_a_comparison_without_measurements_makes_a_page_too() -> None:
    result = as_result(answered([Found(WORKER, failed="no such model")]))
    assert [section.chart for section in to_page(result).sections if section.chart] == []
    assert len(claims(result.answer)) == 4


def test_no_secret_is_on_it() -> None:
    result = as_result(answered(found_of()), ("--rpc_headers=authorization=Bearer s3cret",))
    assert "s3cret" not in str(to_page(result))


@pytest.mark.slow
def test_it_is_one_small_page_without_requests() -> None:
    pytest.importorskip("vl_convert")
    html = render_page(page())
    assert len(html) < 5_000_000 and "<script" not in html and html.count('role="graphics-document"') >= 5
