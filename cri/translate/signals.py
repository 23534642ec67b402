"""Stop signals: CRI's enumeration, an image's text, the kernel's numbers. Pure."""

from __future__ import annotations

import signal
from typing import Any

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import InvalidArgument
from runtime_core.kernel.decimal_number import parse_decimal

_RTMIN, _RTMAX = 34, 64


def stop_signal(wanted: int, image: str) -> int:
    """Of CRI's enumeration, else the image's StopSignal ("SIGTERM", "TERM", "15"), else SIGTERM."""
    name = api.Signal.Name(wanted).removeprefix("SIGNAL_") if wanted else image.upper()
    if not name:
        return signal.SIGTERM
    number = parse_decimal(name, _RTMAX)
    if number is None:
        number = _signal_number(name if name.startswith("SIG") else f"SIG{name}")
    if not 0 < number <= _RTMAX:
        raise InvalidArgument(f"stop signal {name!r} is unknown")
    return number


def _signal_number(name: str) -> int:
    for prefix, base, sign in (("SIGRTMIN", _RTMIN, 1), ("SIGRTMAX", _RTMAX, -1)):
        if name.startswith(prefix):
            digits = name.removeprefix(prefix).removeprefix("PLUS").removeprefix("MINUS").lstrip("+-") or "0"
            offset = parse_decimal(digits, _RTMAX)
            return 0 if offset is None else base + sign * offset
    return int(getattr(signal, name, 0))


def cri_signal(number: int) -> Any:
    """CRI's value for a signal's number; RUNTIME_DEFAULT for one that CRI has no name for."""
    return _BY_NUMBER.get(number, api.SIGNAL_RUNTIME_DEFAULT)


def _by_number() -> dict[int, int]:
    found: dict[int, int] = {}
    for name, value in api.Signal.items():
        number = _signal_number(name.removeprefix("SIGNAL_"))
        if number > 0:
            found.setdefault(number, value)
    return found


_BY_NUMBER = _by_number()
