"""Capability names and masks."""

from __future__ import annotations

import pytest

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import capabilities


def test_numbers_are_those_of_the_kernel() -> None:
    """linux/capability.h: the first, one in the middle, the last."""
    for name, number in (("CAP_CHOWN", 0), ("CAP_SYS_ADMIN", 21), ("CAP_CHECKPOINT_RESTORE", 40)):
        assert capabilities.mask([name], "") == 1 << number


def test_names_and_masks_are_inverse() -> None:
    """Every known capability survives the way there and back."""
    everything = ["CAP_" + name for name in capabilities.NAMES]
    assert capabilities.names(capabilities.mask(everything, "")) == everything


@pytest.mark.parametrize("name", ["CHOWN", "cap_chown", "CAP_NOPE", "", "ALL"])
def test_unknown_names_are_refused_with_their_field(name: str) -> None:
    """Only the specification's spelling; what is written otherwise is an error that names the field."""
    with pytest.raises(InvalidArgument, match="process.x"):
        capabilities.mask([name], "process.x")


def test_machine_names_what_this_process_holds() -> None:
    """Never more than the kernel knows, never an unknown name."""
    assert set(capabilities.machine()) <= {"CAP_" + name for name in capabilities.NAMES}
