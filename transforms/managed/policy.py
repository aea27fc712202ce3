"""When a managed job is not worth its price."""

import dataclasses

from sluice.models.errors import TooManyFailures
from sluice.transforms.core.commit import FailurePolicy


@dataclasses.dataclass(frozen=True)
class UnpaidPolicy(FailurePolicy):
    """Refuses the job of which too many rows failed before it was paid for. The others were not scored."""

    def check(self, rows_in: int, predictions: int, failures: int) -> None:
        """Raises TooManyFailures."""
        raise TooManyFailures(
            f"{failures} of {rows_in} rows failed ({failures / rows_in:.1%}), more than --max_failure_rate "
            f"{self.max_failure_rate:g} allows; the failures are written, and the service has not been asked for a job"
        )
