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
    distribution: str


def load_driver(kind: str, name: str) -> Any:
    """The object that the entry point `name` of trivet.<kind> stands for; it is not called.

    InvalidArgument when no distribution declares it, or when its module cannot be loaded.
    """
    from stevedore.driver import DriverManager
    from stevedore.exception import NoMatches  # here: 0.1 s that a CLI without drivers should not pay

    failures: list[str] = []
    try:
        manager: DriverManager[Any] = DriverManager(
            f"trivet.{kind}",
            name,
            on_load_failure_callback=lambda _manager, entry, error: failures.append(f"{entry.value}: {error}"),
            warn_on_missing_entrypoint=False,
        )
    except NoMatches as missing:
        reason = "; ".join(failures) or f"installed are {', '.join(d.name for d in installed(kind)) or 'none'}"
        raise InvalidArgument(f"no {kind} driver {name!r} can be loaded: {reason}") from missing
    return manager.extensions[0].plugin


def locate(kind: str, name: str) -> str:
    """The "module:attribute" of a driver, for a process that cannot ask stevedore."""
    for driver in installed(kind):
        if driver.name == name:
            return driver.entry
    raise InvalidArgument(f"no {kind} driver {name!r}: installed are {', '.join(d.name for d in installed(kind))}")


def installed(kind: str) -> list[Driver]:
    """All declared drivers of a kind, by name, loaded or not."""
    from importlib.metadata import entry_points

    return sorted(
        (
            Driver(kind, entry.name, entry.value, entry.dist.name if entry.dist else "?")
            for entry in entry_points(group=f"trivet.{kind}")
        ),
        key=lambda driver: driver.name,
    )
