"""Points where a test can make a process die, fail or wait; nothing at all unless it asks.

TRIVET_FAILPOINTS="monitor.create.forked=kill:2;cni.added=error;pull.layer=delay:200" is read
once, at start: `kill` is SIGKILL to oneself, `error` raises TrivetError, `bug` what nobody foresees, `delay`
sleeps milliseconds; a number after the first three says at which hit. Cold.
"""

from __future__ import annotations

import os
import signal
import time

from runtime_core.errors import InvalidArgument, TrivetError


def _parse(text: str) -> dict[str, list[object]]:
    armed: dict[str, list[object]] = {}
    for item in filter(None, text.split(";")):
        name, equals, action = item.partition("=")
        kind, _, number = action.partition(":")
        if not equals or kind not in ("kill", "error", "bug", "delay") or not (number or "1").isdigit():
            raise InvalidArgument(f"TRIVET_FAILPOINTS: {item!r} is not NAME=kill|error|bug|delay[:NUMBER]")
        armed[name] = [kind, int(number or 1)]
    return armed


_ARMED = _parse(os.environ.get("TRIVET_FAILPOINTS", ""))


def hit(name: str) -> None:
    """Pass the point `name`."""
    if _ARMED and name in _ARMED:
        _act(name, _ARMED[name])


def _act(name: str, state: list[object]) -> None:
    kind, number = state
    assert isinstance(number, int)
    if kind == "delay":
        time.sleep(number / 1000)
        return
    state[1] = number - 1
    if number != 1:
        return
    os.write(2, f"failpoint {name}\n".encode())
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "bug":
        raise ArithmeticError(f"failpoint {name}")
    raise TrivetError(f"failpoint {name}")
