"""Measures the ways to serve a model, and shows the answer."""

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sluice.models.errors import UsageError
from sluice.pipelines.compare.answer import Goals, answer
from sluice.pipelines.compare.bench import Bench, Processes
from sluice.pipelines.compare.budget import Budget
from sluice.pipelines.compare.costing import use_of
from sluice.pipelines.compare.found import Found
from sluice.pipelines.compare.managed import managed_ways
from sluice.pipelines.compare.measure import Comparison, Wanted
from sluice.pipelines.compare.page import to_page
from sluice.pipelines.compare.prices import Prices, read_prices
from sluice.pipelines.compare.probe import parse_job
from sluice.pipelines.compare.result import Result, config_of, machine, to_json
from sluice.pipelines.compare.sample import Sample
from sluice.pipelines.compare.subject import Point
from sluice.pipelines.compare.text import failures, render
from sluice.pipelines.compare.ways import REST, VERTEX, VERTEX_JOB, Way, find_ways
from sluice.pipelines.logs import tell
from sluice.pipelines.managed.open import is_here
from sluice.pipelines.options.compare import CompareOptions
from sluice.pipelines.outcome import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from sluice.pipelines.plan.batch_job import plan_batch
from sluice.pipelines.progress.display import Display, TextLines
from sluice.pipelines.report.draw import check_drawable
from sluice.pipelines.report.page import render_page
from sluice.transforms.core.beam_files import write_text
from sluice.transforms.core.formats import FILES, PACKED
from sluice.transforms.decode.spec import InputSpec
from sluice.transforms.files.find_files import find_files

# Flags of `sluice batch` that have no place here: they are those of the comparison, or make no files of a sample.
_NOT_HERE = (
    "output",
    "output_table",
    "input_table",
    "input_query",
    "failures_table",
    *("limit", "check", "vertex_direct", "read_paths", "read_paths_root"),
)


def compare(options: CompareOptions, flags: Sequence[str]) -> int:
    """Measures, and prints the answer; returns the exit code.

    Args:
      flags: of `sluice batch`, that all ways have.

    Raises:
      UsageError: the model, the sample and the flags do not fit; nothing has been measured.
    """
    model = options.model if "://" in options.model else os.path.abspath(options.model)
    if options.report_file:
        check_drawable("--report_file")
    ways, prices = _ways(options, model), read_prices(options.prices)
    job_flags = joined_flags(flags)
    budget = Budget(options.minutes)
    with tempfile.TemporaryDirectory(prefix="sluice-compare-") as directory:
        checked = check_sample(options, job_flags, directory)
        wanted = Wanted(
            checked.fixed, options.target_p99_ms or None, options.streams == "yes", sample_bytes=checked.bytes
        )
        with Processes(
            model, checked.flags, checked.sample, directory, lambda: budget.limit, options.temp_location
        ) as bench:
            found, interrupted = measure(bench, ways, budget, wanted, options.progress)
    return show(options, make_result(options, job_flags, found, prices, budget, interrupted))


class Checked(NamedTuple):
    """A sample that fits the model.

    Attributes:
      flags: of all jobs.
      fixed: the settings of mini-batching among them.
    """

    sample: Sample
    bytes: int
    flags: list[str]
    fixed: Point


def joined_flags(words: Sequence[str]) -> list[str]:
    """Returns flags as --NAME=VALUE, however they were given.

    Raises:
      UsageError: a word is no flag, or the flag cannot be given here.
    """
    flags: list[str] = []
    for word in words:
        if word.startswith("--"):
            flags.append(word)
        elif flags and "=" not in flags[-1]:
            flags[-1] += f"={word}"
        else:
            raise UsageError(f"'{word}' is no flag; give a glob in quotes, and --input again for each further path")
    for flag in flags:
        if flag.removeprefix("--").partition("=")[0] in _NOT_HERE:
            raise UsageError(f"{flag.partition('=')[0]} has no place in a comparison; leave it out")
        if flag == f"--input_format={FILES}":
            raise UsageError(f"{flag}: a comparison reads rows, and no files that are rows")
    return flags


def check_sample(options: CompareOptions, flags: Sequence[str], directory: str) -> Checked:
    """Checks the model, the sample and the flags against each other, as a job does at its launch.

    Raises:
      UsageError: they do not fit.
    """
    given = parse_job([*flags, "--model=m", "--input=i", "--output=o"])
    found = find_files(options.input, given.input_format)
    named = [] if _has(flags, "output_format") else [f"--output_format={found.format}"]
    own = [*flags, *named, f"--input_format={found.format}"]
    inputs = [f"--input={path}" for path in options.input]
    job = parse_job([*own, *inputs, f"--model={options.model}", f"--output={os.path.join(directory, 'checked')}"])
    spec = plan_batch(job).input.spec
    files = [file.path for file in found.files]
    sample = Sample(files, found.format, spec is not None and is_plain(spec, files), directory)
    size = sum(file.size_in_bytes for file in found.files)
    return Checked(sample, size, own, Point(job.max_batch_size, job.max_in_flight))


def _has(flags: Sequence[str], name: str) -> bool:
    return any(flag.startswith(f"--{name}=") for flag in flags)


def is_plain(spec: InputSpec, files: Sequence[str]) -> bool:
    """Whether the contents of files may follow each other; see Sample."""
    csv = spec.csv
    odd = csv.column_names or csv.skip_lines or csv.encoding or csv.cr_ends or csv.allow_quoted_newlines or spec.arrays
    return not odd and not any(path.endswith(PACKED) for path in files)


def measure(
    bench: Bench, ways: Sequence[Way], budget: Budget, wanted: Wanted, progress: str
) -> tuple[list[Found], bool]:
    """Measures until the time is over, or ctrl-C; returns what was found, and whether it was interrupted."""
    doing = [""]
    comparison = Comparison(bench, ways, budget, wanted, lambda text: doing.__setitem__(0, text))
    lines = TextLines(lambda: f"{max(0.0, budget.left()):,.0f} s left  {doing[0]}")
    with Display(lines, progress):
        try:
            comparison.run()
        except KeyboardInterrupt:
            return [*comparison.found, *comparison.managed], True
    return [*comparison.found, *comparison.managed], False


def make_result(
    options: CompareOptions,
    flags: Sequence[str],
    found: list[Found],
    prices: Prices,
    budget: Budget,
    interrupted: bool,
) -> Result:
    """Returns what the measurements say."""
    cores = len(os.sched_getaffinity(0))
    goals = Goals(options.rows, options.deadline, options.target_qps, options.target_p99_ms, options.rows_per_month)
    rest = [each for each in found if each.way.kind == REST and each.way.is_reference]
    served = use_of(rest[0], cores) if rest else None
    notes = [*failures(found), *_notes(found, flags), f"Measured in {budget.spent:,.0f} s on {machine()}"]
    if interrupted:
        notes.append("Interrupted: these are the figures of what was measured until then")
    return Result(
        options.model,
        answer(found, prices, goals, cores),
        managed_ways(served, prices, {each.way.kind for each in found if each.jobs}),
        prices,
        options.target_p99_ms,
        tuple(flags),
        tuple(notes),
        interrupted,
    )


def _ways(options: CompareOptions, model: str) -> list[Way]:
    return find_ways(model, options.endpoint, options.only, options.measure_managed)


def _notes(found: Sequence[Found], flags: Sequence[str]) -> list[str]:
    notes = list(_managed_notes(found, flags))
    if any(each.way.is_reference for each in found):
        notes.append(
            "The reference server is written in Python and shares this machine's cores: TensorFlow Serving on a "
            "machine of its own answers more; give it by --endpoint to measure it"
        )
    notes += [f"{each.way.title}: {why}" for each in found if (why := _why_no_rate(each))]
    refused = max((each.loaded.refused for each in found if each.loaded), default=0)
    if refused:
        notes.append(f"{refused:,} rows of the sample have no prediction; they count in jobs only")
    return notes


def _managed_notes(found: Sequence[Found], flags: Sequence[str]) -> Iterator[str]:
    service = parse_job([*flags, "--model=m", "--input=i", "--output=o"]).vertex_endpoint
    if service and is_here(service) and any(each.way.kind in (VERTEX, VERTEX_JOB) for each in found):
        yield f"What stands at {service} is a local service, which starts no machines: it is not Vertex AI"
    elif any(each.way.is_managed_job and each.jobs for each in found):
        yield "The managed job was run once, on one n1-standard-4; the time that its machines take to start varies"


def _why_no_rate(found: Found) -> str:
    """Returns why nothing is known of a row more; "": something is, or it was told before."""
    if found.jobs and found.rate is None:
        return "jobs of many rows took no longer than those of one row; give more --minutes, and let nothing else run"
    if found.loaded and not found.jobs and not found.failed:
        return "no job fitted into the time; give more --minutes, or a smaller sample"
    return ""


def show(options: CompareOptions, result: Result) -> int:
    """Prints the answer, and writes the files that are asked for; returns the exit code."""
    print(render(result))
    if options.summary_file:
        write_text(options.summary_file, to_json(result) + "\n")
    if options.report_file:
        write_text(options.report_file, render_page(to_page(result)))
    best = result.answer.at_rest
    if options.write_config and best:
        write_text(options.write_config, config_of(best.found.way.uri, result.flags(best)))
    if result.interrupted:
        tell("sluice compare: interrupted\n", logging.WARNING)
        return EXIT_INTERRUPTED
    return EXIT_OK if best or any(each.found.streams for each in result.answer.lines) else EXIT_FAILED
