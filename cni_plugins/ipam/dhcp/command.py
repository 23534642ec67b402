"""The command line `dhcp daemon`, with the reference plugin's flags. Cold."""

from __future__ import annotations

import re
import sys

from cni_plugins.ipam.dhcp.daemon import DEFAULT_SOCKET, serve
from runtime_core.command_line import describe
from runtime_core.errors import InvalidArgument, TrivetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_USAGE = """usage: dhcp daemon [-socketpath PATH] [-pidfile PATH] [-hostprefix PREFIX] [-broadcast]
                   [-timeout DURATION] [-resendmax DURATION] [-resendtimeout DURATION]
Durations are as 500ms, 10s or 1m30s."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ms|s|m|h)")
_DURATIONS = {"timeout": "timeout", "resendmax": "resend_max", "resendtimeout": "resend_timeout"}
_TEXTS = {"socketpath": "socket_path", "pidfile": "pidfile", "hostprefix": "host_prefix"}
_TRUTHS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}


def command_line(arguments: list[str]) -> int:
    """Exit status: 2 for a wrong command line, 1 for a daemon that cannot serve."""
    if arguments[:1] != ["daemon"] or {"-h", "-help", "--help"} & set(arguments):
        print(_USAGE, file=sys.stderr)
        return 0 if arguments[:1] == ["daemon"] else 2
    try:
        options = parse_arguments(arguments[1:])
    except InvalidArgument as error:
        print(f"dhcp: {error}\n{_USAGE}", file=sys.stderr)
        return 2
    try:
        serve(**options)
    except TrivetError as error:
        print(f"dhcp: {describe(error)}", file=sys.stderr)
        return 1
    return 0


def parse_arguments(arguments: list[str]) -> dict[str, Any]:
    """Arguments of serve(); a flag has one dash or two, its value behind it or behind "="."""
    found: dict[str, Any] = {"socket_path": DEFAULT_SOCKET}
    left = list(arguments)
    while left:
        word = left.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-") or name not in {"broadcast", *_DURATIONS, *_TEXTS}:
            raise InvalidArgument(f"{word!r} is unknown")
        if name == "broadcast":
            if equals and value.lower() not in _TRUTHS:
                raise InvalidArgument(f"-broadcast: {value!r} is not true or false")
            found["is_broadcast"] = _TRUTHS[value.lower()] if equals else True
            continue
        if not equals:
            if not left:
                raise InvalidArgument(f"-{name} lacks its value")
            value = left.pop(0)
        if name in _TEXTS:
            found[_TEXTS[name]] = value or found.get(_TEXTS[name], "")
        else:
            found[_DURATIONS[name]] = _seconds(value, f"-{name}")
    return found


def _seconds(text: str, field: str) -> float:
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f"{field}: {text!r} is not a duration")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
