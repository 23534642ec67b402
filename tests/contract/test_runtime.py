"""Every installed trivet.runtime driver keeps its contract."""

from __future__ import annotations

import pytest

from runtime_core.registry import installed, load_driver
from runtime_core.testing.runtime_contract import Bench, MakeRuntime, RuntimeContract


# The socket that a refused connection to a monitor leaves to the garbage collector (runtime_core/monitor/client.py).
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("name", [driver.name for driver in installed("runtime")])
class TestRuntimes(RuntimeContract):
    @pytest.fixture
    def make_runtime(self, name: str) -> MakeRuntime:
        return load_driver("runtime", name)  # type: ignore[no-any-return]

    @pytest.mark.xfail(strict=True, reason="open_pod leaves the pinned network namespace when the monitor refuses")
    def test_a_failed_open_leaves_nothing(self, bench: Bench) -> None:
        """See the suite."""
        super().test_a_failed_open_leaves_nothing(bench)

    @pytest.mark.xfail(strict=True, reason="the monitor says EINVAL, which is an internal error, for a signal that is none")
    def test_kill_of_the_dead_and_of_the_unknown(self, bench: Bench) -> None:
        """See the suite."""
        super().test_kill_of_the_dead_and_of_the_unknown(bench)
