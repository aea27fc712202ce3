"""Values of the same thing, measured several times: their middle, their spread, and which of two is more."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import TypeVar

Name = TypeVar("Name")

# What is measured once has no spread: it is taken to vary by so much to each side.
UNKNOWN_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Spread:
    """Values, in the order in which they were measured; there is one at least."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values) if len(self.values) > 1 else self.median * (1 - UNKNOWN_SHARE)

    @property
    def most(self) -> float:
        return max(self.values) if len(self.values) > 1 else self.median * (1 + UNKNOWN_SHARE)

    def overlaps(self, other: "Spread") -> bool:
        """Whether the two cannot be told apart: the least of one is not above the most of the other."""
        return self.least <= other.most and other.least <= self.most


def ranked(found: Mapping[Name, Spread]) -> list[list[Name]]:
    """Returns the names by their medians, the greatest first; those that tie with the best of their group together."""
    groups: list[list[Name]] = []
    for name in sorted(found, key=lambda name: -found[name].median):
        if groups and found[name].overlaps(found[groups[-1][0]]):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups
