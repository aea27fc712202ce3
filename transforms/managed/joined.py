"""Rows with the model's outputs, and all else that a batch job knows before it writes."""

from typing import NamedTuple

import apache_beam as beam


class Joined(NamedTuple):
    """Rows that have been scored, and those that have not.

    Attributes:
      rows: with the model's outputs.
      failures: rows that the model, or a service, gave no outputs for.
      earlier: rows that failed before.
      tally: the number of rows read (ints, to be summed).
    """

    rows: beam.PCollection
    failures: beam.PCollection
    earlier: beam.PCollection
    tally: beam.PCollection
