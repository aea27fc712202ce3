"""A cheap look at expressions of PromQL: brackets, names of functions, metrics and labels. It does not check types.

https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

import re
from collections.abc import Iterator, Mapping, Set

_TOKEN = re.compile(
    r"""(?P<space>\s+)|(?P<text>"(?:[^"\\]|\\.)*")|(?P<range>\[(?:\d+[smhdw]|\$__rate_interval)\])"""
    r"""|(?P<number>\d+(?:\.\d+)?(?:e\d+)?)(?![\w.])|(?P<name>[a-zA-Z_]\w*)|(?P<mark>=~|!~|[=!<>]=|[-+*/%^=<>,(){}])"""
)
_CLOSING = {"(": ")", "{": "}"}
_AGGREGATES = frozenset({"sum", "min", "max", "avg", "count", "topk"})
FUNCTIONS = _AGGREGATES | {"rate", "increase", "max_over_time", "histogram_quantile", "absent", "clamp_min"}
# They precede a list of labels in brackets.
_GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_SET_OPERATORS = frozenset({"and", "or", "unless"})
# A rate is of samples in a range.
_OF_RANGES = frozenset({"rate", "increase"})
# So is what is taken over a time, of gauges.
_OVER_TIME = frozenset({"max_over_time"})


def faults(expression: str, metrics: Mapping[str, Set[str]]) -> list[str]:
    """Returns what is wrong with an expression.

    Args:
      metrics: the labels of each metric that there is.
    """
    try:
        tokens = list(_tokens(expression))
    except ValueError as error:
        return [str(error)]
    return [*_brackets(tokens), *_names(tokens, metrics)]


def names_of(expression: str) -> set[str]:
    """Returns the names of metrics in an expression, or what stands where they should."""
    return {name for kind, name, _ in _roles(list(_tokens(expression))) if kind == "metric"}


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    """Yields (kind, text); raises ValueError at what is no token."""
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"what is {expression[at : at + 20]!r}?")
        at = match.end()
        if match.lastgroup != "space":
            yield str(match.lastgroup), match[0]


def _brackets(tokens: list[tuple[str, str]]) -> Iterator[str]:
    open_: list[str] = []
    for kind, text in tokens:
        if kind == "mark" and text in _CLOSING:
            open_.append(_CLOSING[text])
        elif kind == "mark" and text in _CLOSING.values() and (not open_ or open_.pop() != text):
            yield f"{text} closes nothing"
    if open_:
        yield f"{open_[-1]} is missing"


def _roles(tokens: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Yields (role, name, of): a function, a metric with the function around it, or a label with its metric, if any."""
    around: list[tuple[str, str]] = [("", "")]  # what each bracket belongs to: a role and a name
    before, metric = "", ""
    for at, (kind, text) in enumerate(tokens):
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        role, owner = around[-1]
        if text in _CLOSING:
            around.append(("label", metric) if text == "{" else ("label", "") if before in _GROUPING else ("", before))
        elif text in _CLOSING.values() and len(around) > 1:
            around.pop()
        elif kind == "name" and role == "label":
            yield "label", text, owner
        elif kind == "name" and text not in (*_GROUPING, *_SET_OPERATORS):
            is_function = following == "(" or (following in _GROUPING and text in _AGGREGATES)
            yield ("function", text, "") if is_function else ("metric", text, owner)
            metric = "" if is_function else text
        before = text if kind == "name" else ""


def _names(tokens: list[tuple[str, str]], metrics: Mapping[str, Set[str]]) -> Iterator[str]:
    every = {label for labels in metrics.values() for label in labels}
    ranges = sum(kind == "range" for kind, _ in tokens)
    rated = 0
    for role, name, of in _roles(tokens):
        if role == "function" and name not in FUNCTIONS:
            yield f"{name} is no function that is known here"
        elif role == "label" and name not in metrics.get(of, every):
            yield f"{of or 'no metric'} has a label {name}"
        elif role == "metric" and name not in metrics:
            yield f"there is no metric {name}"
        elif role == "metric" and name.endswith(("_total", "_bucket", "_sum", "_count")) != (of in _OF_RANGES):
            yield f"{name} is a counter, or rated without being one"
        rated += role == "metric" and of in _OF_RANGES | _OVER_TIME
    if rated != ranges:
        yield f"{rated} metrics are rated, and {ranges} have a range"
