"""Why rows fail, counted: failures of one reason and with other values are one group. In bounded memory."""

import dataclasses
import functools
import heapq
import re
import threading

from sluice.models.wording import Message, public_text

# Of a text, so much tells its reason; of a reason and an example, so much is kept.
_READ, _KEPT = 1_000, 300
# So many groups are told apart. Beyond that, the smaller half is one: "other reasons".
_MOST_GROUPS = 1_000
# Of a group, so many values are kept, from so many of its failures: they tell which flag may help.
_MOST_VALUES, _SEEN_FOR_VALUES = 20, 1_000
# After so many messages whose public text has their reason, that text tells the reason of others: it is a look-up
# instead of a search for values, which is most of the cost of a failure here (20 us of processor time, and 2).
_TRUSTED = 20

# What stands for a value in a reason.
VALUE = "\u2026"

_NAMES = r"(?:column|input|output|feature) '.+?'(?=[\s:,;.)]|$)|(?:u?int|b?float|bool|string)\d*\[[\d, ?x]*\]"
_QUOTED = r"(?<!\w)b?'(?:[^'\\]|\\.)*'(?!\w)|(?<!\w)b?\"(?:[^\"\\]|\\.)*\"(?!\w)"
# Values that are cut, and lists that are.
_CUT = r"(?<!\w)b?'[^']*?\.\.\.(?=$|[,;])|(?<!\w)b?\"[^\"]*?\.\.\.(?=$|[,;])|\.\.\."
_WITHHELD = r"\[withheld\]"
_PATHS = r"(?<!\w)(?:[a-z][a-z0-9+.-]*://|/)[^\s'\",;:)]+"
_HEX = r"(?<![\w.-])(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{6,}(?:-[0-9a-fA-F]{4,})*(?!\w)"
# Numbers, and what is written like them: dates, times, addresses, 3rd.
_NUMBERS = r"(?<![\w.-])[-+]?\d(?:[\w.,:+/-]*\w)?%?|(?<!\w)-?(?:nan|NaN|inf|Infinity)(?!\w)"
_TOKENS = re.compile(f"({_NAMES})|{_QUOTED}|{_CUT}|{_WITHHELD}|{_PATHS}|{_HEX}|{_NUMBERS}", re.DOTALL)
_SEVERAL = re.compile(f"{VALUE}(?:(?:, |: |,|:| x )?{VALUE})+")
_HELD = re.compile(rf"\[{VALUE}?\]|\{{{VALUE}?\}}|\({VALUE}\)|[\[{{(]{VALUE}$")
# A value of a column, as messages quote it: column 'age': 'NA' is not int64.
_OF_COLUMN = re.compile(r"column '.+?': ('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")(?= )", re.DOTALL)


@dataclasses.dataclass
class Group:
    """Failures of one reason.

    Attributes:
      reason: the words that their messages share, with VALUE for each value.
      example: the message of one of them, and `origin` where its row stands.
      public: what may be told of `example` where the values of rows are private.
      payload: a part of that row, if it is text; "" if it is not known.
      values: some of the values that the messages quote of a column, in quotes.
      inputs: of the model: those that take this column, if their names differ from its own.
    """

    stage: str
    error_type: str
    reason: str
    count: int = 0
    example: str = ""
    origin: str = ""
    public: str = ""
    payload: str = ""
    values: dict[str, None] = dataclasses.field(default_factory=dict)
    inputs: tuple[str, ...] = ()


def reason_of(text: str) -> str:
    """Returns the words of a message, on one line, with VALUE for what differs between rows.

    Names of columns stay. What differs is told by how it is written: quoted, as a number, as a path.
    """
    return _reason_of(str(text[:_READ]))


@functools.lru_cache(1024)
def _reason_of(text: str) -> str:
    reason = _TOKENS.sub(lambda token: token[1] or VALUE, text)
    before = ""
    while before != reason:  # lists within lists
        before, reason = reason, _HELD.sub(VALUE, _SEVERAL.sub(VALUE, reason))
    return shown(reason)


def shown(text: str, most: int = _KEPT) -> str:
    """Returns a text on one line, as a terminal can show it: a row may hold what moves its cursor."""
    part = text[:most]
    if not part.isprintable():
        part = "".join(each if each.isprintable() else repr(each)[1:-1] for each in part)
    return part + VALUE if len(text) > most else part


class Reasons:
    """Counts failures by stage, type and reason. Thread-safe.

    Attributes:
      total: failures that were counted.
      others: those among them that belong to no group any more: their reasons are too many, and too rare.
    """

    def __init__(self, most_groups: int = _MOST_GROUPS) -> None:
        self._most_groups = most_groups
        self._lock = threading.Lock()  # guards all that follows
        self._groups: dict[tuple[str, str, str], Group] = {}
        # By public text: its reason, and how many messages had it; below 0: one had another.
        self._public: dict[str, tuple[str, int]] = {}
        self.total = self.others = 0

    def clear(self) -> None:
        """Begins anew."""
        with self._lock:
            self._groups, self._public = {}, {}
            self.total = self.others = 0

    def add(
        self, stage: str, error_type: str, message: str, origin: str = "", payload: str = "", count: int = 1
    ) -> None:
        """Counts a failure.

        Args:
          message: with its public text, if it has one: see models.wording.
          count: of failures that have this message.
        """
        with self._lock:
            key = (stage, error_type, self._reason_of(message))
            self.total += count
            group = self._groups.get(key)
            if group is None:
                public = shown(public_text(message))
                group = Group(*key, 0, shown(message), shown(origin), public, shown(payload))
                self._groups[key] = group
                self._forget_rare()
            group.count += count
            if group.count <= _SEEN_FOR_VALUES and len(group.values) < _MOST_VALUES:
                self._note_value(group, message)

    def _reason_of(self, message: str) -> str:
        if not isinstance(message, Message):
            return reason_of(message)
        told, agreed = self._public.get(message.public, ("", 0))
        if agreed >= _TRUSTED:
            return told
        reason = reason_of(message)
        if agreed >= 0:
            told = told or reason_of(message.public)
            if len(self._public) >= self._most_groups:
                self._public.clear()
            self._public[message.public] = (told, agreed + 1 if reason == told else -1)
        return reason

    @staticmethod
    def _note_value(group: Group, message: str) -> None:
        if found := _OF_COLUMN.match(message[:_READ]):
            group.values[found[1]] = None

    def _forget_rare(self) -> None:
        """Keeps the larger half of the groups, and the newest, once they are too many."""
        if len(self._groups) <= self._most_groups:
            return
        *older, newest = self._groups.items()
        kept = heapq.nlargest(self._most_groups // 2, older, key=lambda item: item[1].count)
        self.others += sum(group.count for _, group in older) - sum(group.count for _, group in kept)
        self._groups = dict([*kept, newest])

    def top(self, most: int = 0, private: bool = False) -> list[Group]:
        """Returns the groups, the largest first.

        Args:
          most: so many of them; 0: all.
          private: no value of a row is in them. Texts of which nothing is known are one reason.
        """
        with self._lock:
            groups = [dataclasses.replace(group, values=dict(group.values)) for group in self._groups.values()]
        if private:
            groups = _without_values(groups)
        groups.sort(key=lambda group: (-group.count, group.stage, group.error_type, group.reason))
        return groups[:most] if most else groups


def _without_values(groups: list[Group]) -> list[Group]:
    merged: dict[tuple[str, str, str], Group] = {}
    for group in groups:
        key = (group.stage, group.error_type, reason_of(group.public))
        public = merged.setdefault(key, Group(*key, 0, group.public, group.origin, group.public))
        public.count += group.count
    return list(merged.values())
