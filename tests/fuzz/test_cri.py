"""trivet-cri under hostile calls: every one is refused or served, and nothing is lost or left."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client
from tests.support.cri_fuzz import CriFuzz, Report
from tests.support.daemon_footprint import footprint
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

#: `./run e2e storm` gives more
_SECONDS = float(os.environ.get("TRIVET_FUZZ_SECONDS", "30"))
_MORE_THREADS = 8
_SETTLE_SECONDS = 20
#: the short form makes the same calls each time; a long one makes others
_SEED = int(os.environ.get("TRIVET_FUZZ_SEED", time.time_ns() % 10**9 if "TRIVET_FUZZ_SECONDS" in os.environ else 20261201))


@pytest.fixture
def client() -> Iterator[Client]:
    registry, node = Registry(), DemoNode()
    try:
        layer = demo_image.build_layer()
        reference = registry.put_image("t/tools", "1", [layer], {"Env": ["PATH=/bin"]})
        default = node.directory / "registries" / "_default"
        default.mkdir(parents=True)
        (default / "hosts.toml").write_text(f'server = "http://{registry.host}"\n')  # no name leads off this machine
        node.start()
        client = Client(node, reference)
        client.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        registry.put_image("t/other", "1", [layer], {"Env": ["PATH=/bin", "A=b"]})
        yield client
    finally:
        node.close()
        registry.close()


@pytest.fixture
def fuzz(client: Client) -> CriFuzz:
    return CriFuzz(client, client.reference.replace("t/tools", "t/other"))


@pytest.mark.timeout(_SECONDS + 80)
def test_hostile_calls_are_refused_and_leave_nothing(client: Client, fuzz: CriFuzz) -> None:
    """No INTERNAL, no lost connection; the live pods live on; what the daemon has is what it had before."""
    fuzz.open()
    fuzz.run(1, seed=0)  # threads and files that come with the first calls
    before = _footprint(client)
    report = fuzz.run(_SECONDS, _SEED)
    assert not report.findings, _told(report)
    assert fuzz.alive() == dict.fromkeys(fuzz.alive(), (api.SANDBOX_READY, api.CONTAINER_RUNNING))
    log = (client.node.directory / "log").read_text()
    assert "Traceback" not in log and "unforeseen" not in log
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (more := _more(client, before)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not more


def _more(client: Client, before: Counter[str]) -> Counter[str]:
    """What is there now and was not before. Threads of pools may be a few more: they come as calls overlap."""
    more = _footprint(client) - before
    for name in [name for name, count in more.items() if name.startswith("thread ") and count <= _MORE_THREADS]:
        del more[name]
    return more


def _footprint(client: Client) -> Counter[str]:
    directory = client.node.directory
    kept = [directory / "state", directory / "root" / "overlayfs" / "snapshots", directory / "root" / "cni"]
    return footprint(client.node.pid, kept, client.node.cgroup)


def _told(report: Report) -> str:
    first = "\n".join(f"{f.method} {f.seed} {f.code} {f.details}\n    {f.done}" for f in report.findings[:20])
    return f"seed {_SEED}: {len(report.findings)} of {report.calls.total()} calls\n{first}"
