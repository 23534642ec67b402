"""Random kills for as long as TRIVET_STORM_SECONDS says (600), one storm of a minute after the other, each with its own seed.

TRIVET_STORM_SEED is the first one's: the seed of a storm that found something is in the test's message.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.storm import Storm
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

_ROOT = Path(__file__).parents[2]
_SECONDS = float(os.environ.get("TRIVET_STORM_SECONDS", "600"))
_SEED = int(os.environ.get("TRIVET_STORM_SEED", time.time_ns() // 1_000_000_000))
_EACH = 60.0
pytestmark = pytest.mark.timeout(_SECONDS * 2 + 600)


@pytest.fixture
def reference() -> Iterator[str]:
    registry = Registry()
    yield registry.put_image("t/tools", "1", [demo_image.build_layer()], {"Env": ["PATH=/bin"]})
    registry.close()


def test_storms_leave_the_truth_and_nothing_else(reference: str) -> None:
    """One node for all of them: what one leaves, the next one finds."""
    node, deadline, total = DemoNode(), time.monotonic() + _SECONDS, Counter[str]()
    try:
        node.start()
        (node.directory / "logs").mkdir()
        node.images().PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)), timeout=30)
        seed = _SEED
        while time.monotonic() < deadline:
            storm = Storm(node, reference, seed, min(_EACH, deadline - time.monotonic()))
            storm.run()
            total += storm.verdicts
            assert storm.problems == [], f"TRIVET_STORM_SEED={seed}: {dict(storm.verdicts)}"
            seed += 1
    finally:
        node.close()
    print(dict(total))
    assert total["ended with its code"]


def test_the_fuzz_for_as_long() -> None:
    """The structured fuzz of all calls, with as many examples as fit."""
    environment = {**os.environ, "TRIVET_FUZZ_SECONDS": str(_SECONDS)}
    command = [sys.executable, "-m", "pytest", f"--timeout={_SECONDS * 2 + 600:.0f}", "tests/fuzz"]
    assert subprocess.run(command, cwd=_ROOT, env=environment, check=False).returncode == 0
