"""Programs that a test cannot do without: skipped where they are missing, an error where CI promises them."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(program: str, package: str) -> str:
    """Path of `program`. Without it the test is skipped and says what to install; with CI=true it fails."""
    found = shutil.which(program)
    if found:
        return found
    reason = f"needs {program} (Debian: apt-get install {package})"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
