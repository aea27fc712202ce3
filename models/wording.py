"""Messages whose words and values are kept apart, so that a policy decides whether the values are told.

    message("column '{name}': {} does not fit {dtype}", value, name="age", dtype="int64")

Values in order are of rows: `public` withholds them. Values by name are of the job: columns, types, limits, remedies. A
message is also the plain text with everything in it. A text that was not made so is withheld as a whole, because nobody
knows what is in it: the text of another library's error, say.
"""

from collections.abc import Callable
from typing import Any

# What stands for a text of which nothing is known.
WITHHELD = "the text is withheld, because --failure_payload keeps the values of rows out, and it may hold some"


class _Value:
    """Stands for a value, however that was to be written."""

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return "[withheld]"


class Message(str):
    """A text, with all its values.

    Attributes:
      public: the same without the values of rows.
    """

    public: str

    def __new__(cls, text: str, public: str) -> "Message":
        made = super().__new__(cls, text)
        made.public = public
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return Message, (str.__str__(self), self.public)


def message(template: str, /, *private: object, **public: object) -> Message:
    """Returns the template, filled as by `str.format`.

    Args:
      private: values of rows; of a Message among them, its public text is told.
      public: everything else; of a Message among them, likewise.
    """
    told = [value.public if isinstance(value, Message) else _Value() for value in private]
    named = {name: value.public if isinstance(value, Message) else value for name, value in public.items()}
    return Message(template.format(*private, **public), template.format(*told, **named))


def changed(text: str, change: Callable[[str], str]) -> str:
    """Returns a text changed; of a Message, both its texts."""
    return Message(change(text), change(text.public)) if isinstance(text, Message) else change(text)


def text_of(error: BaseException) -> str:
    """Returns the text of an error, as a Message if the error was made of one; "" if it has none."""
    only = error.args[0] if len(error.args) == 1 else None
    return only if isinstance(only, Message) else str(error)


def public_text(text: str) -> str:
    """Returns what may be told of a text where the values of rows are private."""
    return text.public if isinstance(text, Message) else WITHHELD


def told(error: BaseException, private: bool) -> str:
    """Returns what is told of an error in the command or its input, which quotes values of rows only in a Message."""
    text = text_of(error)
    return text.public if private and isinstance(text, Message) else str(text)


def log_text(error: BaseException, private: bool) -> str:
    """Returns what a log tells of an error that a model or its server raised: its words may quote rows."""
    return f"{type(error).__name__}: {public_text(text_of(error))}" if private else str(error)
