"""The stack of an exception that nobody foresaw, on standard error; the process goes on. Cold."""

from __future__ import annotations

import sys


def report(doing: str) -> None:
    """Tell of the exception that is being handled; no error when standard error is gone or full."""
    try:
        sys.stderr.write(f"unforeseen, {doing}:\n")
        # Not by `traceback`, which would keep its imports in every pod's monitor.
        sys.__excepthook__(*sys.exc_info())  # type: ignore[arg-type]
    except (OSError, ValueError):
        return
