"""What the contract suite of `trivet.volume` works with: a back end, its volumes mounted and opened, and looks at the node."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime_core.interfaces.volume import Access, Volume, VolumeBackend
from runtime_core.kernel import loop_device, mounts, syscalls

MIB, _SYS_RESOURCE = 1 << 20, 1 << 24


@dataclass(frozen=True)
class VolumeEnvironment:
    """A back end on its directory, and a directory of targets to mount on."""

    make: Callable[[], VolumeBackend]
    backend: VolumeBackend
    targets: Path
    fs_type: str
    parameters: dict[str, str]
    size: int

    def volume(self, name: str, access: Access = "mount", size: int = 0) -> Volume:
        """A description; nothing is made."""
        fs_type = self.fs_type if access == "mount" else ""
        rounded = self.backend.round_size(size or self.size, 0, fs_type)
        return Volume(id=name, size=rounded, access=access, fs_type=fs_type, parameters=self.parameters)

    def create_volume(self, name: str, access: Access = "mount", size: int = 0) -> Volume:
        """A volume that the back end has created."""
        volume = self.volume(name, access, size)
        self.backend.create(volume, None)
        return volume

    @contextmanager
    def open(self, volume: Volume, *, read_only: bool = False, flags: Sequence[str] = ()) -> Iterator[Path]:
        """A mounted volume's directory, or a block volume's device; given back at the end."""
        if volume.access == "block":
            yield Path(self.backend.device(volume, read_only=read_only))
            self.backend.detach(volume.id)
            return
        with self.mounted(volume, read_only=read_only, flags=flags) as target:
            yield target
        self.backend.detach(volume.id)

    @contextmanager
    def mounted(self, volume: Volume, *, read_only: bool = False, flags: Sequence[str] = ()) -> Iterator[Path]:
        target = self.targets / f"{volume.id}-{len(os.listdir(self.targets))}"
        target.mkdir(parents=True)
        attach(self.backend.mount(volume, flags, read_only=read_only), target)
        try:
            yield target
        finally:
            syscalls.umount2(str(target))

    def write(self, place: Path, content: bytes) -> None:
        """Into a file of a mounted volume, or to the begin of a device; durable."""
        descriptor = os.open(place / "content" if place.is_dir() else place, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self, place: Path, length: int) -> bytes:
        """`length` bytes of what `write` wrote."""
        with open(place / "content" if place.is_dir() else place, "rb") as file:
            return file.read(length)


def require_access(env: VolumeEnvironment, access: str) -> None:
    if access not in env.backend.features().access:
        pytest.skip(f"this back end has no {access} volumes")


def require_feature(env: VolumeEnvironment, feature: str) -> None:
    if not getattr(env.backend.features(), feature):
        pytest.skip(f"this back end does not announce {feature}")


def attach(mount: int, target: Path) -> None:
    place = os.open(target, os.O_PATH)
    try:
        mounts.attach(mount, place)
    finally:
        os.close(place)
        os.close(mount)


def mounted_below(directory: Path) -> list[str]:
    return [point for point in mounts.current_mount_points() if point.startswith(f"{directory}/")]


def bound_loops(below: Path) -> set[int]:
    """Loop devices over what lies below this directory; others have theirs."""
    numbers = [int(name[4:]) for name in os.listdir("/sys/block") if name.startswith("loop")]
    return {number for number in numbers if str(below) in loop_device.backing_file(number)}


def wait_for(path: Path) -> None:
    wait_until(path.exists, f"{path} does not come")


def wait_until(done: Callable[[], bool], otherwise: str) -> None:
    """A loop device goes with its last user, which may be udev."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)


def fill(path: Path, most: int) -> tuple[int, int]:
    """(bytes that could be written and synced, errno that ended it), by one without CAP_SYS_RESOURCE, as containers are:
    ext4 lets who has it past a quota."""
    reader, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            effective, permitted, inheritable = syscalls.capget()
            syscalls.capset(effective & ~_SYS_RESOURCE, permitted & ~_SYS_RESOURCE, inheritable)
            os.write(told, "{} {}".format(*_fill(path, most)).encode())
        finally:
            os._exit(0)
    os.close(told)
    with os.fdopen(reader) as file:
        written, code = map(int, file.read().split())
    os.waitpid(child, 0)
    return written, code


def _fill(path: Path, most: int) -> tuple[int, int]:
    written, chunk = 0, os.urandom(MIB)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while written < most:
            written += os.write(descriptor, chunk)
            os.fsync(descriptor)  # btrfs and delayed allocation say it late
    except OSError as error:
        return written, error.errno or 0
    finally:
        os.close(descriptor)
    return written, 0


def try_write(device: Path) -> int:
    """0, or the errno with which a write that is synced fails."""
    try:
        descriptor = os.open(device, os.O_RDWR)
        try:
            os.pwrite(descriptor, b"x" * 4096, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or 0
    return 0


def write_blocks(device: Path, blocks: dict[int, bytes]) -> None:
    descriptor = os.open(device, os.O_RDWR)
    try:
        for offset, content in blocks.items():
            os.pwrite(descriptor, content, offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
