"""`--model URI` taken apart."""

import dataclasses

from models.errors import UsageError

_SCHEMES = "DIR, gs://BUCKET/DIR"


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """What a --model URI names.

    Attributes:
      uri: as the user gave it, without a trailing slash.
      version: pinned by the launcher so that late workers load the same one; None: the newest complete version.
    """

    uri: str
    version: int | None = None


def parse_model_uri(uri: str) -> ModelSpec:
    """Returns the spec of a --model URI.

    Raises:
      UsageError: empty, or of a scheme that no backend serves.
    """
    uri = uri.strip()
    if not uri:
        raise UsageError(f"--model is empty; give {_SCHEMES}")
    scheme = uri.split("://", 1)[0] if "://" in uri else ""
    if scheme not in ("", "gs", "file"):
        raise UsageError(f"--model {uri}: '{scheme}://' is not a scheme this version can call; give {_SCHEMES}")
    if scheme == "gs" and not uri.removeprefix("gs://").strip("/"):
        raise UsageError(f"--model {uri} names no bucket; give gs://BUCKET/DIR")
    return ModelSpec(uri.removeprefix("file://").rstrip("/") or "/")
