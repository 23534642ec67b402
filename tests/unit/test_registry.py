"""Drivers by name: what is said of one that is missing, broken, or declared twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime_core.errors import InvalidArgument
from runtime_core.registry import installed, load_driver, locate


def _distribution(directory: Path, name: str, *declared: str) -> None:
    """A distribution that declares drivers of trivet.network."""
    folder = directory / f"{name}-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[trivet.network]\n" + "\n".join(declared) + "\n")


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that Python looks for distributions in, and modules too."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("stevedore.extension.ExtensionManager.ENTRY_POINT_CACHE", {})  # it remembers for the process
    return tmp_path


def test_a_strangers_driver_is_found(strangers: Path) -> None:
    """By what its own distribution declares; no file of ours knows it."""
    (strangers / "stranger_network.py").write_text("class Mine: pass\n")
    _distribution(strangers, "stranger", "theirs = stranger_network:Mine")
    assert load_driver("network", "theirs").__name__ == "Mine"
    assert locate("network", "theirs") == "stranger_network:Mine"
    assert ("theirs", "stranger") in [(driver.name, driver.distribution) for driver in installed("network")]


def test_a_driver_that_nobody_declares() -> None:
    """What is installed is listed; of a kind that has none, that is said."""
    with pytest.raises(InvalidArgument, match="no network driver 'nothing': installed are cni, none"):
        load_driver("network", "nothing")
    with pytest.raises(InvalidArgument, match="no hook driver 'nothing': installed are none"):
        load_driver("hook", "nothing")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [("no_such_module:Mine", "No module named"), ("broken_network:Mine", "it breaks"), ("whole_network:Absent", "Absent")],
)
def test_a_driver_that_cannot_be_loaded(strangers: Path, entry: str, reason: str) -> None:
    """Its entry point and the reason are named."""
    (strangers / "broken_network.py").write_text("raise RuntimeError('it breaks')\n")
    (strangers / "whole_network.py").write_text("")
    _distribution(strangers, "stranger", f"theirs = {entry}")
    with pytest.raises(InvalidArgument, match=f"'theirs' cannot be loaded: {entry}: .*{reason}"):
        load_driver("network", "theirs")


def test_a_driver_that_two_declare(strangers: Path) -> None:
    """Both distributions are named: which one runs must not be left to chance."""
    _distribution(strangers, "stranger", "cni = stranger_network:Mine")
    for ask in (load_driver, locate):
        with pytest.raises(
            InvalidArgument, match="network driver 'cni' is declared by (stranger and by trivet|trivet and by stranger)"
        ):
            ask("network", "cni")
