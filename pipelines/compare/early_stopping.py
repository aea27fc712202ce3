"""How many queries a percentile of latencies needs, by the early stopping of MLPerf Inference.

Source: appendix "Early stopping criterion" of the rules of MLPerf Inference,
https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc. A run of n queries shows that a share
p of all queries is within a latency, with confidence c, if at most t of the n are over it, where the chance of t or
fewer among n, each over it with the chance 1 - p, is at most 1 - c.
"""

import math
from collections.abc import Sequence

# The percentile of the Server scenario, and how sure it has to be.
P99, CONFIDENCE = 0.99, 0.99


def _count_below(queries: int, share: float, level: float) -> int:
    """Returns the number of t from 0 on at which the chance of t or fewer queries over the limit is at most `level`."""
    log_level, log_odds = math.log(level), math.log1p(-share) - math.log(share)
    log_term = log_sum = queries * math.log(share)
    for over in range(queries):
        if log_sum > log_level + 1e-12:
            return over
        log_term += math.log((queries - over) / (over + 1)) + log_odds
        log_sum = max(log_sum, log_term) + math.log1p(math.exp(-abs(log_sum - log_term)))
    return queries


def allowed_over(queries: int, share: float = P99, confidence: float = CONFIDENCE) -> int | None:
    """Returns how many of so many queries may be over a latency that a share of all is to be within; None: too few."""
    count = _count_below(queries, share, 1 - confidence)
    return count - 1 if count else None


def queries_needed(over: int, share: float = P99, confidence: float = CONFIDENCE) -> int:
    """Returns the least number of queries of which so many may be over the latency: the table of the rules."""
    least, most = over, 1024
    while (allowed_over(most, share, confidence) or 0) < max(over, 1):
        most *= 2
    while least < most:
        middle = (least + most) // 2
        allowed = allowed_over(middle, share, confidence)
        if allowed is not None and allowed >= over:
            most = middle
        else:
            least = middle + 1
    return least


def estimate(ascending: Sequence[float], share: float = P99, confidence: float = CONFIDENCE) -> float | None:
    """Returns the latency that a share of all queries is within, with this confidence; None: too few queries.

    As in loadgen, it is the least of the latencies that are allowed to be over it, so one at least is needed.
    """
    allowed = allowed_over(len(ascending), share, confidence)
    return ascending[len(ascending) - allowed] if allowed else None


def interval(
    ascending: Sequence[float], share: float = P99, confidence: float = CONFIDENCE
) -> tuple[float, float] | None:
    """Returns latencies below and above the percentile, each with this confidence; None: too few queries."""
    upper = estimate(ascending, share, confidence)
    below = _count_below(len(ascending), share, confidence) + 1
    if upper is None or below > len(ascending):
        return None
    return ascending[len(ascending) - below], upper


def percentile(ascending: Sequence[float], share: float) -> float:
    """Returns the least of the values that a share of them does not exceed."""
    return ascending[max(1, math.ceil(share * len(ascending) - 1e-9)) - 1]
