"""Where the rows of a batch job go, as its last step sees it: they wait until the job is judged, and are then seen."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar


class Sized(Protocol):
    """What a bundle has written. Hashable."""

    @property
    def size(self) -> int:
        """Bytes."""


Part = TypeVar("Part", bound=Sized)


class Committer(Protocol):
    """Files, or a table. Picklable.

    What has been written is known by the records that its writer gave, one for each part that a bundle finished; each
    has `rows`.
    """

    def commit(self, written: Sequence[Any]) -> Sequence[str]:
        """Has the parts seen, all of them, each once; returns the names of the files, of a table none.

        It may be called again, with the same parts, after it was interrupted or has failed.

        Raises:
          SluiceError: it cannot be done.
        """

    def clean_up(self) -> None:
        """Removes what is temporary: the job has been judged, and its rows are in place, or never will be."""


def in_groups(
    parts: Iterable[Part], name: Callable[[Part], str], max_parts: int, max_bytes: int
) -> Iterator[list[Part]]:
    """Yields what one request may hold; for the same parts, in whatever order, always the same."""
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
