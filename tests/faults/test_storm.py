"""A minute of random kills while pods live: every end is told right, every line is there, and nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.storm import Storm
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

_SECONDS, _SEED = 45, 20261


@pytest.fixture
def reference() -> Iterator[str]:
    registry = Registry()
    yield registry.put_image("t/tools", "1", [demo_image.build_layer()], {"Env": ["PATH=/bin"]})
    registry.close()


@pytest.mark.timeout(300)
def test_a_storm_leaves_the_truth_and_nothing_else(reference: str) -> None:
    """Long, with another seed: ./run e2e storm."""
    node = DemoNode()
    try:
        node.start()
        (node.directory / "logs").mkdir()
        node.images().PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)), timeout=30)
        storm = Storm(node, reference, _SEED, _SECONDS)
        storm.run()
        assert storm.problems == [], dict(storm.verdicts)
        assert storm.verdicts["daemon killed"] and storm.verdicts["monitor killed"] and storm.verdicts["launcher killed"]
        assert storm.verdicts["ended with its code"] > 10
    finally:
        node.close()
