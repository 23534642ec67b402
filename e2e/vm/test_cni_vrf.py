"""The CNI plugin vrf on a kernel that has VRFs, which many a build machine's has not."""

from __future__ import annotations

import pytest

from e2e.vm.guest import Guest

pytestmark = pytest.mark.timeout(1800)


def test_vrf(guest: Guest) -> None:
    """The tests that are skipped elsewhere: addresses and routes kept, tables chosen, CHECK, DEL, STATUS."""
    output = guest.run("./run", "test", "-p", "no:cacheprovider", "-rs", "tests/kernel/cni/test_meta_vrf.py", seconds=600)
    assert " passed" in output
    assert "needs a kernel with VRFs" not in output
