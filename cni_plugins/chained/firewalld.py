"""firewalld, by its command: addresses of containers are sources of a zone. Cold.

A reload of firewalld forgets them, for they are none of its permanent settings: CHECK tells.
"""

from __future__ import annotations

import ipaddress
import os

from runtime_core.errors import InvalidArgument, NotFound, TrivetError, from_oserror

_COMMAND = "firewall-cmd"
_MORE_PATH = "/usr/bin:/bin:/usr/sbin"
_SECONDS = 30
#: the address is where it should be
_ALREADY = ("ALREADY_ENABLED", "ZONE_ALREADY_SET")
_NOT_THERE = ("NOT_ENABLED", "UNKNOWN_SOURCE")
_ZONE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/.")


class NotRunning(NotFound):
    """The plugin is not available (CNI specification, error code 50)."""

    code = 50


def is_running() -> bool:
    """Whether firewalld answers."""
    return bool(_find()) and _run("--state")[0] == 0


def check_running() -> None:
    """NotRunning unless firewalld answers."""
    if not _find():
        raise NotRunning(f"backend: {_COMMAND} is not installed")
    status, said = _run("--state")
    if status:
        raise NotRunning(f"backend: firewalld does not run: {said}")


def check_zone(zone: str) -> str:
    if not 0 < len(zone) <= 64 or not set(zone) <= _ZONE_LETTERS or zone.startswith("-"):
        raise InvalidArgument(f"firewalldZone: {zone!r} is not the name of a zone")
    return zone


def add_sources(zone: str, addresses: list[str]) -> None:
    """Make the addresses sources of the zone. Idempotent."""
    for address in addresses:
        status, said = _run(f"--zone={zone}", f"--add-source={_source(address)}")
        if status and not any(word in said for word in _ALREADY):
            raise TrivetError(f"firewalld: adding {address} to zone {zone}: {said}")


def remove_sources(zone: str, addresses: list[str]) -> None:
    """Idempotent."""
    for address in addresses:
        status, said = _run(f"--zone={zone}", f"--remove-source={_source(address)}")
        if status and not any(word in said for word in _NOT_THERE):
            raise TrivetError(f"firewalld: removing {address} from zone {zone}: {said}")


def missing_sources(zone: str, addresses: list[str]) -> list[str]:
    """Those of `addresses` that are not sources of the zone."""
    return [address for address in addresses if _run(f"--zone={zone}", f"--query-source={_source(address)}")[0]]


def _source(address: str) -> str:
    ip = ipaddress.ip_interface(address).ip
    return f"{ip}/{ip.max_prefixlen}"


def _run(*arguments: str) -> tuple[int, str]:
    """(exit status, what it said)."""
    import subprocess  # here: it is dear, and most nodes have no firewalld

    try:
        done = subprocess.run([_find(), *arguments], capture_output=True, text=True, check=False, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise TrivetError(f"{_COMMAND} did not end within {_SECONDS} s") from error
    except OSError as error:
        raise from_oserror(error, f"running {_COMMAND}") from error
    return done.returncode, (done.stdout + done.stderr).strip()


def _find() -> str:
    for directory in f"{os.environ.get('PATH', '')}:{_MORE_PATH}".split(":"):
        path = os.path.join(directory, _COMMAND)
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    return ""
