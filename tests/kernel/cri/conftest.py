"""One daemon for the tests of a file, and a pod for each that asks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    registry, node = Registry(), DemoNode()
    try:
        reference = registry.put_image("t/tools", "1", [demo_image.build_layer()], {"Env": ["PATH=/bin"]})
        node.start()
        client = Client(node, reference)
        client.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        yield client
    finally:
        node.close()
        registry.close()


@pytest.fixture
def pod(client: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    pod = client.pod(request.node.name[:40])
    yield pod
    client.runtime.RemovePodSandbox(api.RemovePodSandboxRequest(pod_sandbox_id=pod))
    for log in client.logs.iterdir():
        log.unlink()
