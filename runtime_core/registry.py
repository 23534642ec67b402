"""Drivers by name: the only file that imports stevedore."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runtime_core.errors import InvalidArgument

KINDS = (
    "runtime", "snapshotter", "cgroup", "network", "cni", "packetfilter", "volume",
    "registry.credentials", "image.verifier", "lsm", "hook",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Driver:
    kind: str
    name: str
    #: "module:attribute" or "module"
    entry: str
    _found: Any

    @property
    def distribution(self) -> str:
        """Who declares it. Asked for only where that matters: the answer takes a parser of e-mail."""
        return self._found.dist.name if self._found.dist else "?"


def load_driver(kind: str, name: str) -> Any:
    """The object that the entry point `name` of trivet.<kind> stands for; it is not called.

    InvalidArgument when no distribution declares it, or more than one, or when its module cannot be loaded.
    """
    from stevedore.driver import DriverManager
    from stevedore.exception import NoMatches  # here: 0.1 s that a CLI without drivers should not pay

    locate(kind, name)
    failures: list[str] = []
    try:
        manager: DriverManager[Any] = DriverManager(
            f"trivet.{kind}",
            name,
            on_load_failure_callback=lambda _manager, entry, error: failures.append(f"{entry.value}: {error}"),
        )
    except NoMatches as missing:
        raise InvalidArgument(f"{kind} driver {name!r} cannot be loaded: {'; '.join(failures)}") from missing
    return manager.extensions[0].plugin


def locate(kind: str, name: str) -> str:
    """The "module:attribute" of a driver, for a process that cannot ask stevedore."""
    drivers = installed(kind)
    found = [driver for driver in drivers if driver.name == name]
    if not found:
        raise InvalidArgument(f"no {kind} driver {name!r}: installed are {', '.join(d.name for d in drivers) or 'none'}")
    if len(found) > 1:
        raise InvalidArgument(f"{kind} driver {name!r} is declared by {' and by '.join(d.distribution for d in found)}")
    return found[0].entry


def installed(kind: str) -> list[Driver]:
    """All declared drivers of a kind, by name, loaded or not."""
    from importlib.metadata import entry_points

    return sorted(
        (Driver(kind, entry.name, entry.value, entry) for entry in entry_points(group=f"trivet.{kind}")),
        key=lambda driver: driver.name,
    )
