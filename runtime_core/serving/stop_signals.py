"""SIGTERM and SIGINT as a descriptor: for a main thread that has nothing else to do than to wait for its end."""

from __future__ import annotations

import os
import signal


def stop_signals() -> int:
    """A descriptor whose `os.read` returns at the first signal, also at one that has come before.

    The byte is written by the handler itself, in whichever thread the kernel runs it. A handler in Python would
    have to wait for the main thread to come out of a system call that nothing interrupts, and
    threading.Event.set within it for a lock that the interrupted thread may hold.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    return reader
