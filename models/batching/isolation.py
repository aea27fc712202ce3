"""Calls a model on a mini-batch, and finds the rows at fault."""

import dataclasses
import functools
from collections.abc import Callable

from sluice.models.batching.mini_batch import Outcome, RowFailure, byte_count, row_count, slice_feeds
from sluice.models.errors import (
    BadInput,
    BatchTooLarge,
    Cancelled,
    MessageTooLarge,
    ModelFault,
    ModelLost,
    Refused,
    ServerFault,
    SluiceError,
    Unavailable,
)
from sluice.models.interface import Outputs
from sluice.models.isolate import Part, isolate
from sluice.models.tensors.binding import Feeds
from sluice.models.wording import message


class ModelBack(Exception):
    """The model failed on a row that had passed before, and answers it again: the batch is begun anew."""


class _AllBreak(SluiceError):
    """The model breaks on every row that was tried."""


class _ModelError(Exception):
    """Wraps (as its cause) an exception that is not Sluice's own: only the model's code can have raised it."""


# A model that fails and answers in turns: a batch is begun anew this often.
_MOST_RETURNS = 5
# Rows at fault may stand side by side: so many others are tried before it is said that a server breaks on all rows.
_MOST_OTHERS = 16


class Isolation:
    """Calls the model on a batch and, where it raises, on halves, until each row has its outcome. For one batch.

    A row is blamed only for what the row did: where an error does not tell whether it is about a row, the row fails
    only if the model then answers one that has passed before, and fails on this one again. BadInput tells; but if no
    row has passed in the batch yet, such a row is tried too.

    Args:
      call: answers feeds, or raises; repeated while that may help.
      max_extra_calls: how many more calls than one a batch may cost. Then the parts still in doubt fail whole. Halving
        a batch that is too large does not count.
      on_ceiling: receives an error of too many rows, and rows that a call may have. A row that is too large by itself
        says nothing about the others.
      raised: errors that are not about rows; `run` raises them.
      answers: whether the model answers a row that has passed before; False: none is known. See Proof.check.
      call_once: the same as `call`, not repeated; None: `call`.
    """

    def __init__(
        self,
        call: Callable[[Feeds], Outputs],
        max_extra_calls: int,
        on_ceiling: Callable[[BatchTooLarge, Feeds], None],
        raised: tuple[type[SluiceError], ...] = (),
        answers: Callable[[], bool] = lambda: False,
        call_once: Callable[[Feeds], Outputs] | None = None,
    ) -> None:
        self._call, self._call_once = call, call_once or call
        self._max_extra_calls = max_extra_calls
        self._on_ceiling = on_ceiling
        self._raised: tuple[type[Exception], ...] = (*raised, Cancelled, ModelLost, _AllBreak)
        self._fails_job = Unavailable in raised
        self._answers = answers
        self._begin()

    def _begin(self, answered: bool = False) -> None:
        self._too_large: list[tuple[int, int, BatchTooLarge]] = []  # parts of which some rows have no outcome yet
        self._last_huge_row = -1  # too large by itself
        self._unsent: set[int] = set()  # rows that are too large to be sent
        self._answered = answered  # some part, or a row that passed before
        self._doubtful: set[int] = set()  # where parts begin that failed by an error that may not be about them
        self._alone = 0  # single rows that failed

    def run(self, feeds: Feeds) -> list[Outcome]:
        """Returns outcomes that cover every row once, in order.

        Raises:
          SluiceError: one of `raised`; Unavailable if the model breaks on every row and Unavailable is in `raised`.
        """
        for _ in range(_MOST_RETURNS):
            try:
                return self._run(feeds)
            except ModelBack:
                self._begin(answered=True)
            except _AllBreak as error:
                if self._fails_job:
                    raise Unavailable(str(error)) from error
                return [Outcome(0, row_count(feeds), RowFailure("ServerFault", str(error)))]
            except Unavailable as error:
                if self._fails_job:
                    raise
                return [Outcome(0, row_count(feeds), RowFailure.of(error))]
        said = f"the model failed and answered again {_MOST_RETURNS} times while one batch was tried"
        if self._fails_job:
            raise Unavailable(said)
        return [Outcome(0, row_count(feeds), RowFailure("Unavailable", said))]

    def _run(self, feeds: Feeds) -> list[Outcome]:
        refused = (BatchTooLarge, BadInput, ModelFault, _ModelError)
        attempt = functools.partial(self._attempt, feeds)
        outcomes = []
        for part in isolate(row_count(feeds), attempt, refused, self._max_extra_calls, free=BatchTooLarge):
            outcomes.append(_outcome(part))
            self._note_ceilings(feeds, part.stop)
        blamed = [each for each in outcomes if isinstance(each.result, RowFailure) and each.start not in self._unsent]
        doubtful = any(each.start in self._doubtful for each in blamed)
        if blamed and (doubtful or not self._answered) and self._ask():
            return [self._confirm(feeds, outcome) for outcome in outcomes]
        if self._answered:
            return outcomes
        return [each if each.start in self._unsent else _unproven(each) for each in outcomes]

    def _confirm(self, feeds: Feeds, outcome: Outcome) -> Outcome:
        """Tries rows again that failed by an error that may not be about them, now that the model has answered."""
        if outcome.start not in self._doubtful or not isinstance(outcome.result, RowFailure):
            return outcome
        try:
            outputs = self._call(slice_feeds(feeds, outcome.start, outcome.stop))
        except self._raised:
            raise
        except Exception:  # noqa: BLE001  it is the rows
            return outcome
        return Outcome(outcome.start, outcome.stop, outputs)

    def _attempt(self, feeds: Feeds, start: int, stop: int) -> Outputs | RowFailure:
        """Calls the model on rows [start, stop). Returns one failure for all of them if halves would fail alike."""
        rows, of = stop - start, row_count(feeds)
        try:
            outputs = self._call(slice_feeds(feeds, start, stop))
        except BatchTooLarge as error:
            if rows == 1:
                self._note_huge(error, start)
            else:
                self._too_large.append((start, stop, error))
            raise
        except BadInput:
            self._note_refused(start, rows, of)
            raise
        except ModelFault as error:
            self._note_fault(error, start, rows, feeds)
            raise
        except self._raised:
            raise
        except (Unavailable, Refused) as error:
            self._answered = True  # the user wants such rows to fail
            return RowFailure.of(error)
        except SluiceError as error:
            return RowFailure.of(error)
        except Exception as error:
            self._note_fault(error, start, rows, feeds)
            raise _ModelError from error
        self._answered = True
        return outputs

    def _note_huge(self, error: BatchTooLarge, start: int) -> None:
        """Notes that a row is too large by itself. That is known of it, and of the server only if it has said so."""
        self._last_huge_row = start
        if error.is_unsent:
            self._unsent.add(start)
        else:
            self._answered = True

    def _note_refused(self, start: int, rows: int, of: int) -> None:
        """Notes that rows were refused by an error that blames them; if all are, it may be wrong."""
        self._alone += rows == 1
        if self._answered or rows > 1:
            return
        self._doubtful.add(start)
        if self._alone >= min(2, of):
            self._ask()

    def _note_fault(self, error: Exception, start: int, rows: int, feeds: Feeds) -> None:
        """Notes an error that does not tell whether it is about a row.

        Raises:
          _AllBreak: the server broke on two single rows, or the only one, and on others too.
        """
        self._alone += rows == 1
        self._doubtful.add(start)
        if self._answered or self._ask():
            return
        if not isinstance(error, ServerFault) or self._alone < min(2, row_count(feeds)):
            return
        self._answered = self._passes_other(feeds, start + 1)
        if not self._answered:
            raise _AllBreak(f"{error}; it is so whatever the rows") from error

    def _passes_other(self, feeds: Feeds, begin: int) -> bool:
        """Whether the model answers one of some rows spread over those from `begin` on."""
        left = row_count(feeds) - begin
        for row in sorted({begin + left * number // _MOST_OTHERS for number in range(_MOST_OTHERS)} if left else ()):
            if self._passes(slice_feeds(feeds, row, row + 1)):
                return True
        return False

    def _passes(self, feeds: Feeds) -> bool:
        try:
            try:
                self._call_once(feeds)
            except Unavailable:  # a server that broke on a row before may be starting again: it is waited for
                self._call(feeds)
        except (Cancelled, ModelLost):
            raise
        except Exception:  # noqa: BLE001  whatever it raises, it does not answer
            return False
        return True

    def _ask(self) -> bool:
        """Whether the model answers a row that has passed before; False: none is known."""
        answers = self._answers()
        self._answered |= answers
        return answers

    def _note_ceilings(self, feeds: Feeds, done: int) -> None:
        """Reports the parts that were too large and of which all rows, up to `done`, have their outcome now."""
        while self._too_large and self._too_large[-1][1] <= done:
            start, stop, error = self._too_large.pop()
            if self._last_huge_row < start:
                self._on_ceiling(error, _larger_half(error, slice_feeds(feeds, start, stop)))


def _outcome(part: Part[Outputs | RowFailure]) -> Outcome:
    if part.error is None:
        assert part.result is not None
        return Outcome(part.start, part.stop, part.result)
    cause = part.error.__cause__ if isinstance(part.error, _ModelError) else None
    failure = RowFailure.of(cause or part.error)
    rows = part.stop - part.start
    if rows > 1:
        text = "not isolated: one or more of {rows} rows called together; {}"
        note = message(text, failure.message, rows=rows)
        failure = dataclasses.replace(failure, message=note)
    return Outcome(part.start, part.stop, failure)


def _unproven(outcome: Outcome) -> Outcome:
    if not isinstance(outcome.result, RowFailure):
        return outcome
    return dataclasses.replace(outcome, result=dataclasses.replace(outcome.result, proven=False))


def _larger_half(error: BatchTooLarge, feeds: Feeds) -> Feeds:
    """Returns the half with more of what was too much: rows or bytes."""
    rows = row_count(feeds)
    halves = slice_feeds(feeds, 0, rows // 2), slice_feeds(feeds, rows // 2, rows)
    if isinstance(error, MessageTooLarge):
        return max(halves, key=lambda half: byte_count(half, exact=True))
    return halves[1]
