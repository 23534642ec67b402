"""Loop devices: many at once, without nodes, over images that went away."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime_core.kernel import loop_device, mounts
from runtime_core.testing.volume_environment import attach as put
from runtime_core.testing.volume_environment import wait_until
from runtime_core.volumes import images

MIB = 1 << 20


def image(directory: Path, name: str = "v") -> str:
    path = directory / "volumes" / name / "image"
    path.parent.mkdir(parents=True)
    with open(path, "wb") as file:
        file.truncate(MIB)
    return str(path)


def test_many_at_once_get_a_device_each(tmp_path: Path) -> None:
    """LOOP_CTL_GET_FREE names one device to several: who comes second takes the next."""
    paths = [image(tmp_path, f"v{number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        numbers = list(pool.map(lambda path: loop_device.attach(path, read_only=False), paths))
    try:
        assert len(set(numbers)) == 12
        assert [loop_device.find(path) for path in paths] == [[number] for number in numbers]
    finally:
        for number in numbers:
            loop_device.detach(number)
    wait_until(lambda: not any(loop_device.find(path) for path in paths), "a device is left")


def test_an_image_is_found_by_what_it_is(tmp_path: Path) -> None:
    """Not by its name: another file at an equal path is not it; nor one that took its place."""
    mine, other = image(tmp_path / "a"), image(tmp_path / "b")
    number = loop_device.attach(mine, read_only=False)
    try:
        assert loop_device.find(other) == []
        os.rename(other, mine)
        assert loop_device.find(mine) == []
    finally:
        loop_device.detach(number)


def test_a_deleted_image_is_found_by_its_path(tmp_path: Path) -> None:
    """So that its device can be given back."""
    path = image(tmp_path)
    number = loop_device.attach(path, read_only=False)
    os.unlink(path)
    try:
        assert loop_device.find(path) == [number]
        assert loop_device.backing_file(number) == f"{path} (deleted)"
    finally:
        loop_device.detach(number)
    loop_device.detach(number)  # again: nothing happens


def test_nodes_that_nobody_made(tmp_path: Path) -> None:
    """In a /dev without loop devices, as of a container, the node is made from what sysfs says."""
    empty, dev = mounts.tmpfs(), Path("/dev")
    put(empty, dev)
    os.mknod("/dev/loop-control", stat.S_IFCHR | 0o600, os.makedev(10, 237))
    number = loop_device.attach(image(tmp_path), read_only=False)
    try:
        assert stat.S_ISBLK(os.stat(loop_device.device_node(number)).st_mode)
    finally:
        loop_device.detach(number)


@pytest.mark.parametrize("read_only", [True, False])
def test_the_device_says_whether_it_is_read_only(tmp_path: Path, read_only: bool) -> None:
    """To the kernel and to us; a read-only user before it leaves no trace."""
    for wanted in (not read_only, read_only):
        path = image(tmp_path, f"v{wanted}".lower())
        number = loop_device.attach(path, read_only=wanted)
        try:
            assert loop_device.is_read_only(number) == wanted
            assert Path(f"/sys/block/loop{number}/ro").read_text() == f"{wanted:d}\n"
        finally:
            loop_device.detach(number)


def test_a_device_that_leaves_is_not_used_again(tmp_path: Path) -> None:
    """Given back while somebody has it open, it goes with him: who attaches the image meanwhile gets another."""
    path = image(tmp_path)
    first = images.ensure_attached(path, read_only=False)
    held = os.open(loop_device.device_node(first), os.O_RDONLY)
    try:
        images.detach(loop_device.find(path), path)
        assert loop_device.is_being_detached(first)
        second = images.ensure_attached(path, read_only=False)
        assert second != first
        assert images.ensure_attached(path, read_only=False) == second
    finally:
        os.close(held)
    wait_until(lambda: loop_device.find(path) == [second], "the first one does not leave")
    images.detach(loop_device.find(path), path)
