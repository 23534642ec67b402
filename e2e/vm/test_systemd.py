"""Trivet's daemons as units of a real systemd."""

from __future__ import annotations

import pytest

from e2e.vm import lane
from e2e.vm.guest import Guest

pytestmark = pytest.mark.timeout(1800)


def test_stopping_a_unit_ends_no_pod_and_no_volume(guest: Guest) -> None:
    """e2e/vm/inside_systemd.py, with KillMode=process as the operations page has it."""
    assert not lane.run(guest, "e2e/vm/inside_systemd.py", seconds=600).skipped
