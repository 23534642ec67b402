"""An exception that nobody foresaw, raised at every step: it costs one request, is told with its stack, and all else lives on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    registry = Registry()
    yield registry
    registry.close()


@pytest.fixture
def node() -> Iterator[DemoNode]:
    node = DemoNode()
    yield node
    node.close()


def _client(node: DemoNode, registry: Registry) -> Client:
    client = Client(node, registry.put_image("t/tools", "1", [demo_image.build_layer()], {"Env": ["PATH=/bin"]}))
    client.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=client.reference)))
    return client


def _internal(call: Any, *arguments: Any, **more: Any) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(*arguments, **more)
    assert (refused.value.code().name, "ArithmeticError" in refused.value.details()) == ("INTERNAL", True)


@pytest.mark.parametrize(
    "point",
    ["create.snapshot", "monitor.create.begun", "container.create.forked", "container.create.cgroup", "monitor.create.done"],
)
def test_a_container_is_not_made_and_its_pod_lives_on(
    node: DemoNode, registry: Registry, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """One lives before it, the second fails, the third is made."""
    # The init hits its points in a process of its own, where each hit is the first.
    hits = 2 if "cgroup" not in point else 1
    monkeypatch.setenv("TRIVET_FAILPOINTS", f"{point}=bug:{hits}")
    node.start()
    client = _client(node, registry)
    pod = client.pod("p")
    live = client.run(pod, "sleep 1000", name="live") if hits == 2 else ""
    _internal(client.create, pod, "true", name="second")
    if live:
        assert client.exec(live, "echo", "x").stdout == b"x\n"
        assert client.ended(client.run(pod, "exit 3", name="third")).exit_code == 3
    status = client.runtime.PodSandboxStatus(api.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
    assert status.state == api.SANDBOX_READY
    assert "failpoint" in (node.directory / "log").read_text()


def test_a_start_fails_and_its_pod_lives_on(node: DemoNode, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container has a StartError, the one beside it runs."""
    monkeypatch.setenv("TRIVET_FAILPOINTS", "monitor.start.before=bug:2")
    node.start()
    client = _client(node, registry)
    pod = client.pod("p")
    live = client.run(pod, "sleep 1000", name="live")
    _internal(client.run, pod, "true", name="second")
    assert client.exec(live, "echo", "x").stdout == b"x\n"
    assert "_act" in (node.directory / "log").read_text()  # the stack


def test_an_end_is_told_also_when_it_could_not_be_recorded(
    node: DemoNode, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is as lost as an exit that nobody hears of."""
    monkeypatch.setenv("TRIVET_FAILPOINTS", "monitor.exit.before-record=bug:1")
    node.start()
    client = _client(node, registry)
    pod = client.pod("p")
    live = client.run(pod, "sleep 1000", name="live")
    assert client.ended(client.run(pod, "exit 4", name="second")).exit_code == 4
    assert client.ended(client.run(pod, "exit 5", name="third")).exit_code == 5
    assert client.exec(live, "echo", "x").stdout == b"x\n"


def test_a_monitor_that_cannot_begin_says_why(node: DemoNode, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that it has died; and nothing is left of the pod."""
    monkeypatch.setenv("TRIVET_FAILPOINTS", "monitor.open.unshared=bug")
    node.start()
    client = Client(node, "none")
    _internal(client.pod, "p")
    assert not client.runtime.ListPodSandbox(api.ListPodSandboxRequest()).items


def test_a_layer_that_cannot_be_unpacked_says_why(node: DemoNode, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that the worker has died, which would be tried again for ever."""
    monkeypatch.setenv("TRIVET_FAILPOINTS", "unpack.entry=bug")
    node.start()
    _internal(_client, node, registry)
    node.images().ListImages(api.ListImagesRequest())
