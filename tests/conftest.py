"""What all tests share: the lanes that need root say so once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before any conftest below imports it: the suites assert, and pytest is to say what it compared.
pytest.register_assert_rewrite("runtime_core.testing")

_NEEDS_ROOT = ("kernel", "contract", "faults", "fuzz")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without root the lanes that need it are skipped, and fail where CI says that nothing may be missing."""
    if os.geteuid() == 0:
        return
    for item in items:
        lane = Path(item.path).relative_to(Path(__file__).parent).parts[0]
        if lane in _NEEDS_ROOT:
            if os.environ.get("CI") == "true":
                raise pytest.UsageError(f"tests/{lane} needs root: sudo ./run test")
            item.add_marker(pytest.mark.skip(reason=f"tests/{lane} needs root: sudo ./run test"))
