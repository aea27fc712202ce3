"""Puts the tables of benchmarks/*.md into the pages of docs that quote them: `python -m benchmarks.quote`.

A table is known by its first line. Where several of a page begin alike, they are in the same order in both.
"""

import collections
import os
from collections.abc import Iterator, Sequence

from benchmarks.checkouts import ROOT

PAGES = {
    "RESULTS.md": "README.md",
    "SERVING.md": "docs/serving.md",
    "STREAMING.md": "docs/streaming.md",
    "BIGQUERY.md": "docs/bigquery.md",
}


def tables(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields where each table of Markdown begins and ends."""
    start = 0
    while start < len(lines):
        stop = start
        while stop < len(lines) and lines[stop].startswith("|"):
            stop += 1
        if stop > start + 1:
            yield start, stop
        start = max(stop, start + 1)


def quoted(page: str, results: str) -> str:
    """Returns the page with the tables of the results in the place of its own that begin alike.

    Raises:
      ValueError: the page lacks one, or has it more often.
    """
    new, old = results.split("\n"), page.split("\n")
    by_head: dict[str, list[list[str]]] = collections.defaultdict(list)
    for start, stop in tables(new):
        by_head[new[start]].append(new[start:stop])
    found: list[str] = []
    done = 0
    for start, stop in tables(old):
        if old[start] in by_head:
            following = by_head[old[start]]
            if not following:
                raise ValueError(f"the page has a table more than the results: {old[start]}")
            found += [*old[done:start], *following.pop(0)]
            done = stop
    missing = [head for head, left in by_head.items() if left]
    if missing:
        raise ValueError(f"the page lacks a table: {missing[0]}")
    return "\n".join([*found, *old[done:]])


def main() -> None:
    """Changes the pages whose results there are."""
    for results, page in PAGES.items():
        written, path = os.path.join(ROOT, "benchmarks", results), os.path.join(ROOT, page)
        if not os.path.exists(written):
            continue
        with open(written, encoding="utf-8") as file:
            found = file.read()
        with open(path, encoding="utf-8") as file:
            text = quoted(file.read(), found)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        print(f"{page} quotes benchmarks/{results}")


if __name__ == "__main__":
    main()
