"""The flusher ends whenever it is told to, and what it was asked for is done."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from csi_driver.records.flusher import Flusher


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "state.db-wal").write_bytes(b"commits")
    return tmp_path


def test_closing_right_after_asking_ends(log: Path) -> None:
    """Each round races the end with the work."""
    for _ in range(500):
        flusher = Flusher(log)
        flusher.flush_soon()
        flusher.close()


def test_flush_syncs_before_it_returns_and_soon_does_after(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    came = threading.Event()

    def fdatasync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        came.set()

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    flusher: Any = Flusher(log)
    flusher.flush()
    assert synced == [str(log / "state.db-wal")]
    came.clear()
    flusher.flush_soon()
    assert came.wait(10) and len(synced) == 2
    flusher.close()
