"""The versions that are installed here, as requirements: workers install the same."""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Iterable, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

# What a requirement may depend on, as it is on workers. Their Python has the version of this one: Beam demands it.
_WORKER = {"os_name": "posix", "platform_machine": "x86_64", "platform_system": "Linux", "sys_platform": "linux"}


@dataclasses.dataclass
class _Pin:
    """An installed package, with the extras that are asked for; "" stands for the package itself."""

    installed: importlib.metadata.Distribution
    extras: set[str]

    def __str__(self) -> str:
        extras = ",".join(sorted(self.extras - {""}))
        version = Version(self.installed.version).public  # a local build (+cu12) is in no index
        return f"{self.installed.metadata['Name']}{f'[{extras}]' if extras else ''}=={version}"


def pinned(requirements: Iterable[str], path: Sequence[str] | None = None) -> list[str]:
    """Returns the versions installed here of these packages, and of all that they require in turn.

    What is not installed here stays as it is declared.

    Args:
      path: where to look for installed packages; None: sys.path.
    """
    declared = [Requirement(text) for text in requirements]
    search = list(sys.path if path is None else path)
    pins: dict[str, _Pin] = {}
    left = list(declared)
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        if name not in pins:
            installed = next(iter(importlib.metadata.distributions(name=name, path=search)), None)
            if installed is None:
                continue
            pins[name] = _Pin(installed, set())
        added = ({""} | wanted.extras) - pins[name].extras
        if not added:
            continue
        pins[name].extras |= added
        left += [each for each in map(Requirement, pins[name].installed.requires or ()) if _applies(each, added)]
    missing = [str(each) for each in declared if canonicalize_name(each.name) not in pins]
    return sorted([*map(str, pins.values()), *missing], key=str.lower)


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    """Whether a worker needs this, with any of the extras."""
    marker = requirement.marker
    return any(marker is None or marker.evaluate({**_WORKER, "extra": extra}) for extra in extras)
