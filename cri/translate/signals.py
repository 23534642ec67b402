"""Stop signals: CRI's enumeration, an image's text, the kernel's numbers. Pure."""

from __future__ import annotations

import re
import signal
from typing import Any

from cri.api.v1 import api_pb2 as api
from runtime_core.errors import InvalidArgument

_RTMIN, _RTMAX = 34, 64
_DIGITS = re.compile(r"[0-9]{1,4}")
_REAL_TIME = re.compile(r"SIGRT(?P<end>MIN|MAX)(?:(?:[-+]|PLUS|MINUS)(?P<distance>[0-9]{1,2}))?")


def stop_signal(wanted: int, image: str) -> int:
    """Of CRI's enumeration, else the image's StopSignal ("SIGTERM", "TERM", "15"), else SIGTERM."""
    field = "config.stop_signal" if wanted else "the image's StopSignal"
    if wanted and wanted not in api.Signal.values():
        raise InvalidArgument(f"{field}: {wanted} is unknown")
    name = api.Signal.Name(wanted).removeprefix("SIGNAL_") if wanted else image.upper()
    if not name:
        return signal.SIGTERM
    if _DIGITS.fullmatch(name):
        number = int(name)
    else:
        number = _signal_number(name if name.startswith("SIG") else f"SIG{name}")
    if not 0 < number <= _RTMAX:
        raise InvalidArgument(f"{field}: {image or name!r} is unknown")
    return number


def _signal_number(name: str) -> int:
    """0 for one that there is not."""
    real_time = _REAL_TIME.fullmatch(name)
    if real_time is None:
        return int(signal.Signals.__members__.get(name, 0))
    base, sign = (_RTMIN, 1) if real_time["end"] == "MIN" else (_RTMAX, -1)
    number = base + sign * int(real_time["distance"] or 0)
    return number if _RTMIN <= number <= _RTMAX else 0


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
