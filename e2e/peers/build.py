"""Programs of others, built from the Go module proxy and kept in a cache directory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_PACKAGES = {
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "registry": "github.com/distribution/distribution/v3/cmd/registry",
}
_MINUTES = 40


def build(name: str) -> Path:
    """The program `name`; minutes when it is built for the first time, seconds after.

    Raises subprocess.CalledProcessError with what the compiler said.
    """
    cache = Path(os.environ.get("TRIVET_PEERS") or Path.home() / ".cache" / "trivet" / "peers")
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / name
    subprocess.run(
        ["go", "build", "-trimpath", "-mod=readonly", "-o", str(target), _PACKAGES[name]],
        cwd=_HERE / name,
        check=True,
        timeout=_MINUTES * 60,
    )
    return target
