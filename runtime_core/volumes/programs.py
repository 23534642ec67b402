"""Programs that make, check and grow file systems, run with a time-out and nothing of the daemon's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Sequence

from runtime_core.errors import DeadlineExceeded, FailedPrecondition, TrivetError

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin:/usr/local/bin"
_SAID = 500


def run_program(command: Sequence[str], package: str, seconds: float, *, good: Collection[int] = (0,)) -> int:
    """Its exit status, one of `good`; FailedPrecondition names the package when the program is missing."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
            env={"PATH": _PATH, "LC_ALL": "C"},
            start_new_session=True,
        )
    except FileNotFoundError:
        raise FailedPrecondition(f"the program {command[0]} is missing: install {package}") from None
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"{command[0]} did not end within {seconds:g} s") from None
    if done.returncode not in good:
        said = " ".join(done.stdout.decode(errors="replace").split())[-_SAID:]
        raise TrivetError(f"{command[0]} ended with status {done.returncode}: {said}")
    return done.returncode


def is_installed(program: str) -> bool:
    return shutil.which(program, path=_PATH) is not None
