"""The base of transforms with several inputs or outputs."""

import apache_beam as beam
from apache_beam.typehints.decorators import IOTypeHints


class Composite(beam.PTransform):
    """A PTransform whose `expand` accepts or returns a NamedTuple of PCollections.

    Beam reads the type hints of `expand` and warns of each that is not a single PCollection. It still checks the hints
    of the transforms inside.
    """

    def default_type_hints(self) -> IOTypeHints:
        return IOTypeHints.empty()
