"""Columns of text, aligned for a terminal.

By hand, as pipelines.progress.display says of the progress line: nothing else would need rich.
"""

from collections.abc import Sequence


def align(rows: Sequence[Sequence[str]], sides: str = "<", indent: str = "") -> list[str]:
    """Returns a line for each row, its cells padded to the widths of their columns.

    Args:
      rows: of equal length.
      sides: for each column "<" (left) or ">" (right); the last one holds for further columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = list(zip(sides.ljust(len(widths), sides[-1]), widths, strict=False))
    return [
        indent + "  ".join(f"{cell:{side}{width}}" for cell, (side, width) in zip(row, columns, strict=True)).rstrip()
        for row in rows
    ]
