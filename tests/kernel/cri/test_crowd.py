"""Many pods at once, and all of them gone: the daemon has what it had before."""

from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cri.api.v1 import api_pb2 as api
from e2e.wait import wait_for
from tests.support.cri_client import Client

_PODS = 64


def test_what_a_crowd_has_needed_goes_with_it(client: Client) -> None:
    """Threads, descriptors and memory are back within a tenth, of what one pod has left."""
    daemon = _daemon(client)
    _live(client, "first")
    before = _figures(daemon)
    with ThreadPoolExecutor(_PODS) as pool:
        list(pool.map(lambda number: _live(client, f"crowd{number}"), range(_PODS)))
    assert _figures(daemon)[0] > 2 * before[0]
    wait_for("as little as before", lambda: all(now <= 1.1 * then for now, then in zip(_figures(daemon), before, strict=True)))


def _live(client: Client, name: str) -> None:
    pod = client.pod(name)
    client.run(pod, "sleep 1000", log_path=f"{name}.log")
    client.runtime.StopPodSandbox(api.StopPodSandboxRequest(pod_sandbox_id=pod))
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))


def _daemon(client: Client) -> int:
    lock = client.node.directory / "state" / "daemon.lock"
    return int(lock.read_text())


def _figures(pid: int) -> tuple[int, int, int]:
    """Threads, descriptors, resident KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    threads, resident = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("Threads", "VmRSS"))
    return threads, len(os.listdir(f"/proc/{pid}/fd")), resident
