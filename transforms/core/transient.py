"""Which errors of Google's services may pass when the call is repeated.

https://google.aip.dev/194 and the error pages of Pub/Sub and BigQuery. INTERNAL, UNKNOWN and CANCELLED come of
connections that break.
"""

from google.api_core import exceptions

TRANSIENT_ERRORS: tuple[type[exceptions.GoogleAPICallError], ...] = (
    exceptions.Aborted,
    exceptions.BadGateway,
    exceptions.Cancelled,
    exceptions.GatewayTimeout,  # DEADLINE_EXCEEDED is one
    exceptions.InternalServerError,
    exceptions.ServiceUnavailable,
    exceptions.TooManyRequests,  # RESOURCE_EXHAUSTED is one
    exceptions.Unknown,
)
# The same, as gRPC's status codes.
TRANSIENT_CODES = frozenset(
    ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN")
)
