"""Runs one batch prediction job: reads, scores in batches, writes."""

import dataclasses
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from google.cloud.aiplatform_v1 import types

from sluice.models.server.faults import Faults
from sluice.models.server.predict import Call, Predictor
from sluice.models.server.rest_server import predict_json
from sluice.models.server.status import StatusError, invalid
from sluice.models.server.store import Spec
from sluice.models.server.vertex.faults import VertexFaults
from sluice.models.server.vertex.files import JobFiles, JobTables
from sluice.models.server.vertex.instances import Instance, Reader, UnreadableFile
from sluice.models.server.vertex.job_checks import BIGQUERY
from sluice.models.server.vertex.limits import BATCH_SIZE, MAX_PARTIAL_FAILURES
from sluice.models.server.vertex.place import Place
from sluice.models.server.vertex.results import Results
from sluice.models.server.vertex.table_results import TableResults
from sluice.models.server.vertex.wire import loads


@dataclasses.dataclass
class Progress:
    """How far a job is. Counts are of instances.

    Attributes:
      partial_failures: files that cannot be read.
      fatal: why the whole job fails.
    """

    succeeded: int = 0
    failed: int = 0
    incomplete: int = 0
    partial_failures: list[str] = dataclasses.field(default_factory=list)
    fatal: str = ""


@dataclasses.dataclass(frozen=True)
class Work:
    """What a job is to do.

    Attributes:
      place: where it writes.
      share: of the instances that are scored; the rest is left.
      rest_fails: what is left counts as failed, not as incomplete.
    """

    job: types.BatchPredictionJob
    spec: Spec
    place: Place
    share: float = 1.0
    rest_fails: bool = False


class JobRun:
    """A job on a thread of its own. Begins at once.

    Attributes:
      progress: of this moment.
    """

    def __init__(
        self,
        work: Work,
        predictor: Predictor,
        faults: VertexFaults,
        files: JobFiles,
        tables: JobTables | None,
    ) -> None:
        self.progress = Progress()
        self._work, self._predictor, self._faults = work, predictor, faults
        self._files, self._tables = files, tables
        self._errors: Counter[str] = Counter()
        self._stopped = threading.Event()
        config = work.job.instance_config
        self._form = work.job.input_config.instances_format
        self._reader = Reader(files, self._form, config, faults.strict_json, tables)
        self._thread = threading.Thread(target=self._run, name="batch-prediction-job", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Lets the job end before it is done."""
        self._stopped.set()

    def wait(self) -> None:
        """Waits until the job has ended."""
        self._thread.join()

    def _run(self) -> None:
        results: Results | TableResults | None = None
        try:
            paths = self._paths()
            left = self._limit(paths)
            results = self._open_results()
            size = self._work.job.manual_batch_tuning_parameters.batch_size or BATCH_SIZE
            for path in paths:
                for batch in _batches(self._readable(path), size):
                    left = self._batch(batch, results, left)
            results.close(self._errors)
        except Exception as error:  # noqa: BLE001  whatever happens, the job ends and says why
            self.progress.fatal = (
                error.message if isinstance(error, StatusError) else f"{type(error).__name__}: {error}"
            )
            if results:
                results.abandon()

    def _open_results(self) -> Results | TableResults:
        place, faults = self._work.place, self._faults
        if not place.directory:
            assert self._tables is not None, "checked when the job was created"
            return TableResults(self._tables, place.predictions, place.errors)
        form = self._work.job.output_config.predictions_format
        return Results(self._files, place.directory, form, faults.shards, faults.suffix, faults.lost_shard)

    def _paths(self) -> list[str]:
        if self._form == BIGQUERY:
            return [self._work.job.input_config.bigquery_source.input_uri]
        uris = self._work.job.input_config.gcs_source.uris
        found = [(uri, self._files.match(uri)) for uri in uris]
        for uri, paths in found:
            if not paths:
                self._cannot_read(f"{uri}: there is no such file")
        paths = [path for _, paths in found for path in paths]
        if not paths:
            raise invalid(f"Cannot find any file of {', '.join(uris)}")
        return paths

    def _limit(self, paths: list[str]) -> float:
        """Returns how many instances are to be scored."""
        if self._work.share >= 1:
            return float("inf")
        return int(self._work.share * sum(1 for path in paths for _ in _until_damage(self._reader.read(path))))

    def _readable(self, path: str) -> Iterator[Instance]:
        try:
            yield from self._reader.read(path)
        except UnreadableFile as error:
            self._cannot_read(str(error))

    def _cannot_read(self, text: str) -> None:
        if len(self.progress.partial_failures) < MAX_PARTIAL_FAILURES:
            self.progress.partial_failures.append(text)

    def _batch(self, batch: list[Instance], results: Results | TableResults, left: float) -> float:
        """Scores one batch; returns how many instances are left to be scored."""
        if self._stopped.is_set() or left <= 0:
            self._leave(len(batch))
            return 0
        if left < len(batch):
            self._leave(len(batch) - int(left))
            batch = batch[: int(left)]
        usable = [each for each in batch if not each.error]
        for each in batch:
            if each.error:
                self._fail(each.error, 1)
        if usable:
            self._score(usable, results)
        return left - len(batch)

    def _score(self, batch: list[Instance], results: Results | TableResults) -> None:
        try:
            predictions = self._predictions([each.sent for each in batch])
        except StatusError as error:
            self._fail(
                "Post request fails. Cannot get predictions. Error: Exceeded retries: Non-OK result "
                f"{error.http_status} ({json.dumps({'error': error.message})}) from server, retry=3.",
                len(batch),
            )
            return
        results.add(batch, predictions)
        self.progress.succeeded += len(batch)

    def _predictions(self, instances: list[Any]) -> list[Any]:
        is_bad = self._faults.is_bad
        if is_bad and any(map(is_bad, instances)):
            raise invalid("an instance that the local service was told to refuse")
        call = Call(self._predictor.store, self._predictor.gate, Faults())
        body = json.dumps({"instances": instances}).encode()
        answer = predict_json(call, self._work.spec, body)
        predictions = loads(answer, "The answer of the model is not JSON:", self._faults.strict_json)["predictions"]
        if len(predictions) != len(instances):
            raise StatusError("INTERNAL", f"{len(predictions)} predictions for {len(instances)} instances")
        return list(predictions)

    def _fail(self, text: str, count: int) -> None:
        self._errors[text] += count
        self.progress.failed += count

    def _leave(self, count: int) -> None:
        if self._work.rest_fails:
            self._fail("The replica that had the instances was lost.", count)
        else:
            self.progress.incomplete += count


def _batches(instances: Iterator[Instance], size: int) -> Iterator[list[Instance]]:
    while batch := list(itertools.islice(instances, size)):
        yield batch


def _until_damage(instances: Iterator[Instance]) -> Iterator[Instance]:
    try:
        yield from instances
    except UnreadableFile:
        return
