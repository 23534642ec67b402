"""Every installed trivet.runtime driver keeps its contract."""

from __future__ import annotations

import pytest

from runtime_core.registry import installed, load_driver
from runtime_core.testing.runtime_contract import MakeRuntime, RuntimeContract


@pytest.mark.parametrize("name", [driver.name for driver in installed("runtime")])
class TestRuntimes(RuntimeContract):
    @pytest.fixture
    def make_runtime(self, name: str) -> MakeRuntime:
        return load_driver("runtime", name)  # type: ignore[no-any-return]
