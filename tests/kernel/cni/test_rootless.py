"""Who is root in a user namespace of its own, and nobody on the node, has every plugin all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from runtime_core.testing.tools import require_program

_ROOT = Path(__file__).parents[3]


def test_every_plugin_does_with_the_callers_own_user_namespace(tmp_path: Path) -> None:
    """All verbs, with /run and /var that cannot be written: nothing is refused that the kernel has at all."""
    require_program("iptables", "iptables")
    command = [
        require_program("unshare", "util-linux"),
        "-Urnm",
        sys.executable,
        "-m",
        "tests.kernel.cni.rootless_lives",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=_ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}
