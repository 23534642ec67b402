"""An exception that nobody foresaw: its stack on standard error, and an error of ours instead. Cold."""

from __future__ import annotations

import sys

from runtime_core.errors import TrivetError, from_exception


def to_trivet_error(error: Exception, doing: str) -> TrivetError:
    """`error` as one of ours; what is neither ours nor the kernel's is reported."""
    if not isinstance(error, (TrivetError, OSError)):
        print_stack(doing)
    return from_exception(error, doing)


def print_stack(doing: str) -> None:
    """Tell of the exception that is being handled; no error when standard error is gone or full.

    No file is opened for lines of the source, and no module: the root may be an image's, the memory a pod's.
    """
    kind, error, frame = sys.exc_info()
    lines = [f"unforeseen, {doing}: {getattr(kind, '__name__', '')}: {error}"]
    while frame is not None:
        code = frame.tb_frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.tb_lineno}, in {code.co_name}')
        frame = frame.tb_next
    try:
        sys.stderr.write("\n".join(lines) + "\n")
    except (OSError, ValueError):
        return
