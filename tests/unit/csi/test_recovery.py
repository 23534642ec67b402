"""Recovery of one thing that fails does not hold the others, nor the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from csi_driver.daemon.recovery import recover
from runtime_core.errors import TrivetError, Unavailable
from tests.support.csi_daemon import MIB, create_request
from tests.unit.csi.conftest import Driver


@pytest.mark.parametrize("error", [Unavailable("not now"), OSError(5, "Input/output error")])
@pytest.mark.parametrize("call", ["expand", "modify", "delete"])
def test_a_failure_is_told_and_the_rest_is_recovered(make_driver: Callable[..., Driver], call: str, error: Exception) -> None:
    driver = make_driver()
    first, second = (driver.CreateVolume(create_request(name)).volume.volume_id for name in "ab")
    changes: dict[str, Any] = {
        "expand": {"growing_to": 4 * MIB}, "modify": {"changing_to": {"iops": "7"}}, "delete": {"phase": "deleting"},
    }[call]  # fmt: skip
    for volume_id in (first, second):
        driver.service.records.volumes.update(volume_id, lambda record: replace(record, **changes))
    real = getattr(driver.backend, call)

    def fail(what: Any) -> Any:
        if first in (what, getattr(what, "id", "")):
            raise error
        return real(what)

    setattr(driver.backend, call, fail)
    told: list[tuple[str, TrivetError]] = []
    recover(driver.service, lambda what, failure: told.append((what, failure)))
    assert [what for what, _ in told] == [first]
    found = driver.service.records.volumes.find(second)
    if call == "delete":
        assert found is None and driver.backend.volumes() == {first}
    else:
        assert found is not None and (found.growing_to, found.changing_to) == (0, None)
        assert found.size == (4 * MIB if call == "expand" else MIB)
