"""Installing the plugin executables: whose files are replaced, and what stands in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cni_plugins.install import find_settings, install
from runtime_core.errors import AlreadyExists, InvalidArgument, TrivetError
from runtime_core.registry import installed

_NAMES = [driver.name for driver in installed("cni")]


def test_every_plugin_is_installed_and_answers(tmp_path: Path) -> None:
    """Twice; each is an executable that knows its versions without the daemon, site-packages or our directory."""
    for _time in range(2):
        assert install(tmp_path / "bin", overwrite=False, settings=find_settings("nftables", service=False)) == _NAMES
    assert sorted(path.name for path in (tmp_path / "bin").iterdir()) == _NAMES
    for name in _NAMES:
        done = subprocess.run(
            [tmp_path / "bin" / name], env={"CNI_COMMAND": "VERSION"}, cwd="/", capture_output=True, check=True
        )  # fmt: skip
        assert b'"1.1.0"' in done.stdout
        assert done.stderr == b""


def test_somebody_elses_plugins_stay(tmp_path: Path) -> None:
    """Unless they are to be replaced; nothing is written in part."""
    (tmp_path / "loopback").write_text("somebody's")
    with pytest.raises(AlreadyExists, match="loopback belong to somebody else"):
        install(tmp_path, overwrite=False, settings=find_settings("nftables", service=False))
    assert [path.name for path in tmp_path.iterdir()] == ["loopback"]
    install(tmp_path, overwrite=True, settings=find_settings("nftables", service=False))
    assert "trivet-cni stub" in (tmp_path / "loopback").read_text()


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    """A packet filter that nobody declares; a directory that is a file."""
    with pytest.raises(InvalidArgument, match="no packetfilter driver 'none'"):
        find_settings("none")
    (tmp_path / "file").touch()
    with pytest.raises(TrivetError, match="file"):
        install(tmp_path / "file", overwrite=False, settings=find_settings("nftables", service=False))
