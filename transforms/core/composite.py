"""A transform of several outputs."""

import apache_beam as beam
from apache_beam.typehints.decorators import IOTypeHints


class Composite(beam.PTransform):
    """A PTransform whose `expand` takes or returns a NamedTuple of PCollections.

    Beam reads type hints off `expand`, and warns at each of them that is not a single PCollection. Those of the
    transforms inside are what it checks.
    """

    def default_type_hints(self) -> IOTypeHints:
        return IOTypeHints.empty()
