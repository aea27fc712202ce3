"""What the last step of a batch job publishes: rows that wait, unseen, until the failure rate is checked."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, Self, TypeVar


class Sized(Protocol):
    """One part of the output that a bundle has finished. Hashable."""

    @property
    def size(self) -> int:
        """Bytes."""


Part = TypeVar("Part", bound=Sized)


class Committer(Protocol):
    """Publishes files, or the rows of a table. Picklable.

    The writer returns one record for each part that a bundle has finished. Each record has `rows`.
    """

    def claim(self, written: Sequence[Any]) -> None:
        """Keeps other jobs from publishing at the same place until `clean_up`; does nothing where they need not wait.

        May be called again with the same parts.

        Raises:
          SluiceError: another job publishes there, or has done so since this one was launched.
        """

    def commit(self, written: Sequence[Any]) -> Sequence[str]:
        """Publishes all the parts, each once; returns the names of the files, none for a table.

        May be called again with the same parts after an interruption or an error.

        Raises:
          SluiceError: the parts cannot be published.
        """

    def clean_up(self) -> None:
        """Removes all that is temporary. The rows have been published, or never will be."""


class Resumable(Committer, Protocol):
    """A `Committer` whose work another process can finish, from a note of it."""

    def note(self, written: Sequence[Any]) -> dict[str, Any]:
        """Returns, as JSON, what `commit` is going to publish."""

    def noted(self, note: dict[str, Any]) -> tuple[Self, Sequence[Any]]:
        """Returns the committer that made a note for the same place, and its parts. To commit them may be a repeat."""


def in_groups(
    parts: Iterable[Part], name: Callable[[Part], str], max_parts: int, max_bytes: int
) -> Iterator[list[Part]]:
    """Yields the parts in groups, each small enough for one request.

    The groups of the same parts are always the same, whatever the order of the parts.
    """
    group: list[Part] = []
    size = 0
    for part in sorted(set(parts), key=name):
        if group and (len(group) == max_parts or size + part.size > max_bytes):
            yield group
            group, size = [], 0
        group.append(part)
        size += part.size
    if group:
        yield group
