"""Cold code stays cold: what a monitor or a CNI executable loads is the standard library and little of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_DEAR = {"typing", "dataclasses", "logging", "grpc", "stevedore", "pyroute2", "yaml", "importlib.metadata", "asyncio"}


@pytest.mark.parametrize(
    "module",
    [
        "runtime_core.monitor.server",
        "runtime_core.launcher.server",
        "runtime_core.images.unpack_worker",
        "plugins.cgroup_managers.v1",
        "plugins.cgroup_managers.v2",
        "cni_plugins.skel",
        "cni_plugins.main.bridge",
        "cni_plugins.ipam.host_local.plugin",
        "cni_plugins.ipam.static",
        "cni_plugins.ipam.dhcp.plugin",
        "cni_plugins.ipam.dhcp.daemon",
        "cni_plugins.meta.portmap",
    ],
)
def test_module_loads_nothing_dear(module: str) -> None:
    """Loaded as the launcher loads it, none of the expensive modules comes along."""
    script = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); import {module}; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    assert not _DEAR & set(loaded.stdout.split())
