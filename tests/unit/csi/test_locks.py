"""Who may work on what beside whom."""

from __future__ import annotations

import pytest

from csi_driver.records.locks import OperationLocks
from runtime_core.errors import Aborted


@pytest.mark.parametrize(
    ("first", "second", "is_free"),
    [
        ({"names": ["a"]}, {"names": ["a"]}, False),
        ({"names": ["a"]}, {"names": ["b"]}, True),
        ({"names": ["a", "b"]}, {"names": ["b", "c"]}, False),
        ({"names": ["a"]}, {"sharing": ["a"]}, False),
        ({"sharing": ["a"]}, {"names": ["a"]}, False),
        ({"sharing": ["a"]}, {"sharing": ["a"]}, True),
        ({"sharing": ["a"]}, {"names": ["b"], "sharing": ["a"]}, True),
    ],
)
def test_what_is_held_and_what_is_shared(first: dict[str, list[str]], second: dict[str, list[str]], is_free: bool) -> None:
    """And a refused call holds nothing, nor does one that is over."""
    holds = OperationLocks()
    with holds.hold(*first.get("names", ()), shared=first.get("sharing", ())):
        if is_free:
            with holds.hold(*second.get("names", ()), shared=second.get("sharing", ())):
                pass
        else:
            with (
                pytest.raises(Aborted, match="under way"),
                holds.hold(*second.get("names", ()), shared=second.get("sharing", ())),
            ):
                pass
    for name in "abc":
        with holds.hold(name):
            pass


def test_a_share_lasts_until_its_last_reader_is_done() -> None:
    holds = OperationLocks()
    with holds.hold(shared=["a"]):
        with holds.hold(shared=["a"]):
            pass
        with pytest.raises(Aborted), holds.hold("a"):
            pass
    with holds.hold("a"):
        pass
