"""Objects by the text of their entry point, asked for by many threads at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from runtime_core.kernel import entry_point
from runtime_core.network.packet_filter import load_packet_filter

_THREADS = 32
#: a module that is in sys.modules, without its class, for as long as nobody has written into the pipe beside it
_SLOW = """
import os
with open(os.path.join(os.path.dirname(__file__), "pipe")) as pipe:
    pipe.read()
from strangers_driver import parts
class Driver:
    part = parts.PART
"""


@pytest.fixture
def strangers_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a driver that nobody has imported yet."""
    package = tmp_path / "strangers_driver"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("PART = 7\n")
    (package / "slow.py").write_text(_SLOW)
    os.mkfifo(package / "pipe")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == package.name]:
        del sys.modules[name]


@pytest.mark.parametrize("look_up", [entry_point.load, lambda entry: type(load_packet_filter(entry))])
def test_many_threads_find_one_whole_module(strangers_driver: Path, look_up: object) -> None:
    """Those that come while it is being imported wait for its end, and all get the same object."""
    entry, barrier = "strangers_driver.slow:Driver", Barrier(_THREADS + 1)

    def load() -> object:
        barrier.wait()
        return look_up(entry)  # type: ignore[operator]

    with ThreadPoolExecutor(_THREADS + 1) as pool:
        first = pool.submit(look_up, entry)  # type: ignore[arg-type]
        with (strangers_driver / "pipe").open("w"):  # opened when the module has begun to read it
            later = [pool.submit(load) for _number in range(_THREADS)]
            barrier.wait()
        found = [future.result() for future in (first, *later)]
    assert {driver.part for driver in found} == {7}
    assert len(set(found)) == 1


def test_a_module_that_fails_is_tried_again(strangers_driver: Path) -> None:
    """Each caller gets the module's own error, and none of them half of it."""
    (strangers_driver / "broken.py").write_text("Driver = 1\nraise ValueError('not today')\n")
    for _time in range(2):
        with pytest.raises(ValueError, match="not today"):
            entry_point.load("strangers_driver.broken:Driver")
    (strangers_driver / "broken.py").write_text("Driver = 1\n")
    assert entry_point.load("strangers_driver.broken:Driver") == 1


def test_what_the_module_does_not_have(strangers_driver: Path) -> None:
    """AttributeError for the object, ModuleNotFoundError for the module."""
    with pytest.raises(AttributeError, match="Nothing"):
        entry_point.load("strangers_driver.parts:Nothing")
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        entry_point.load("strangers_driver.nowhere:Driver")
