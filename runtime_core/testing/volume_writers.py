"""Writers that do not stop, and what has to be true of every copy that was made meanwhile."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime_core.kernel.paths import sync_directory


@contextmanager
def writer(*places: Path) -> Iterator[None]:
    """Somebody who writes first-N to the first place, then second-N to the second, each synced, on and on."""

    def write() -> None:
        for number in range(100_000):
            for name, place in zip(("first", "second"), places, strict=True):
                write_durably(place / f"{name}-{number}", content_of(name, number))
            if number > 40:  # the last ones only, so that the volume does not fill
                for name, place in zip(("first", "second"), places, strict=True):
                    (place / f"{name}-{number - 20}").unlink()

    with _meanwhile(write):
        yield


@contextmanager
def count_on_devices(*devices: Path) -> Iterator[None]:
    """Somebody who writes 1, 2, 3 … to the first device, each then to the second, synced."""

    def count() -> None:
        opened = [os.open(device, os.O_WRONLY | os.O_SYNC) for device in devices]
        for number in range(1, 1_000_000):
            for descriptor in opened:
                os.pwrite(descriptor, number.to_bytes(8, "big") * 512, 0)

    with _meanwhile(count):
        yield


@contextmanager
def _meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """A process that does `work`, for as long as the block lasts."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def count_of(device: Path) -> int:
    with open(device, "rb") as file:
        return int.from_bytes(file.read(8), "big")


def write_durably(path: Path, content: bytes) -> None:
    """Under its name it is there whole or not at all: an instant between making and writing it is an instant too."""
    unfinished = path.with_name(f".{path.name}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)
    unfinished.rename(path)
    sync_directory(str(path.parent))


def content_of(name: str, number: int) -> bytes:
    return hashlib.sha256(f"{name} {number}".encode()).digest() * 200


def check_order(one: Path, two: Path) -> int:
    """Every second-N has its first-N, and both are whole; the highest N."""
    numbers = {int(path.name.split("-")[1]) for path in two.iterdir() if path.name.startswith("second-")}
    firsts = {int(path.name.split("-")[1]) for path in one.iterdir() if path.name.startswith("first-")}
    newest = max(numbers)
    assert newest <= max(firsts)
    assert newest in firsts
    for number in numbers & firsts:
        # one that was removed at that moment may be gone from one of the two, but never half
        assert (one / f"first-{number}").read_bytes() == content_of("first", number)
        assert (two / f"second-{number}").read_bytes() == content_of("second", number)
    return newest


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
