"""A volume's image in its directory, on the node: attached, mounted, grown, given back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from runtime_core.errors import FailedPrecondition, NotFound, TrivetError, Unavailable, from_oserror
from runtime_core.interfaces.volume import Problem, Usage, Volume
from runtime_core.kernel import failpoint, loop_device
from runtime_core.kernel.decimal_number import parse_decimal
from runtime_core.volumes import device_release, freezing, health, image_filesystem, images, mount_flags, sizes
from runtime_core.volumes.layout import Layout


class ImageVolumes:
    """The node's half of back ends whose volumes are image files on loop devices."""

    def __init__(self, layout: Layout, *, freeze_seconds: float, program_seconds: float) -> None:
        self._layout, self._freeze_seconds, self._program_seconds = layout, freeze_seconds, program_seconds
        #: of volumes that are larger than their mounted file system
        self._pending: set[str] = set()
        self._shut_down = health.ShutdownCheck()

    def unfreeze_leftover(self) -> None:
        """Of a driver that died between freeze and thaw."""
        freezing.unfreeze_leftover(self._layout.frozen, _open_marked, self._freeze_seconds)

    def image(self, volume_id: str) -> str:
        """Path of the volume's image; NotFound without one."""
        path = os.path.join(self._layout.volume(volume_id), images.NAME)
        if not os.path.exists(path):
            raise NotFound(f"volume {volume_id} has no image")
        return path

    def copy(self, pairs: Sequence[tuple[str, Volume, str]]) -> None:
        """Copy images (source directory, its volume, target directory) at one instant, for `images.finish`."""
        jobs = []
        for source, volume, target in pairs:
            path = os.path.join(source, images.NAME)
            if not os.path.exists(path):
                raise NotFound(f"volume {volume.id} has no image")
            jobs.append(images.Job(path, target, volume.access == "mount"))
        kinds = {job.source: volume for job, (_source, volume, _target) in zip(jobs, pairs, strict=True)}

        @contextmanager
        def freeze(frozen: Sequence[images.Job]) -> Iterator[float]:
            with self._frozen({kinds[job.source].id: (job.source, kinds[job.source].fs_type) for job in frozen}) as deadline:
                yield deadline

        images.copy_at_one_instant(jobs, freeze)
        for source, volume, target in pairs:
            if volume.access == "block" or image_filesystem.is_made(source):
                image_filesystem.mark_made(target)

    @contextmanager
    def _frozen(self, volumes: Mapping[str, tuple[str, str]]) -> Iterator[float]:
        if not volumes:
            yield float("inf")
            return
        roots = {}
        for volume_id, (image, fs_type) in volumes.items():
            number = _claimed(loop_device.find(image))
            if number is None:
                continue  # its last mount went since the look that asked for it to be frozen: it stands still
            roots[volume_id] = (
                f"{number} {fs_type}",
                lambda number=number, fs_type=fs_type: image_filesystem.superblock_root(number, fs_type),
            )
        with freezing.frozen(roots, self._layout.frozen, self._freeze_seconds) as deadline:
            yield deadline

    def _devices(self, volume_id: str) -> tuple[list[int], str]:
        """One look at all loop devices of the node, which takes its time where there are hundreds; and the image's path."""
        image = os.path.join(self._layout.volume(volume_id), images.NAME)
        return loop_device.find(image), image

    def is_attached(self, volume_id: str) -> bool:
        """By a device that somebody uses, or may use: not by one that was given back and only waits for its last holder."""
        numbers, _image = self._devices(volume_id)
        return any(loop_device.is_claimed(number) or not loop_device.is_being_detached(number) for number in numbers)

    def release(self, volume_id: str) -> None:
        """Before its image is deleted: FailedPrecondition while a file system on it is mounted, by whomever."""
        numbers, image = self._devices(volume_id)
        for number in numbers:
            if loop_device.is_claimed(number) and not loop_device.is_being_detached(number) and loop_device.find(image, [number]):
                raise FailedPrecondition(f"volume {volume_id} is mounted {device_release.holders_of(number)}")
        try:
            self._detach(volume_id, numbers, image)
        except Unavailable as error:
            raise FailedPrecondition(str(error)) from error

    def mount(self, volume: Volume, flags: Sequence[str], *, read_only: bool) -> int:
        """As VolumeBackend.mount."""
        parsed = mount_flags.parse(flags, read_only=read_only)
        image = self.image(volume.id)
        try:
            numbers = loop_device.find(image)
            mounted = _mount_again(numbers, volume, parsed)
            if mounted is not None:
                return mounted
            images.detach(numbers, image)  # left over: the programs are to see what was written there, and it what they write
            image_filesystem.prepare(self._layout.volume(volume.id), volume.fs_type, self._program_seconds)
            self._pending.discard(volume.id)
            return self._mount_first(image, volume, parsed)
        except OSError as error:
            raise from_oserror(error, f"mounting volume {volume.id}") from error

    def _mount_first(self, image: str, volume: Volume, flags: mount_flags.MountFlags) -> int:
        number = images.attach(image, read_only=False)
        try:
            mounted = image_filesystem.mount(number, volume.fs_type, flags)
        except (OSError, TrivetError):
            images.detach([number], image)
            raise
        if volume.fs_type == "xfs" and not flags.read_only:  # growth left over; ext4 has it behind it
            try:
                image_filesystem.grow(f"/proc/self/fd/{mounted}", "xfs", os.stat(image).st_size)
            except (OSError, FailedPrecondition):
                self._pending.add(volume.id)  # it can be used, and `problems` says so
        return mounted

    def device(self, volume: Volume, *, read_only: bool) -> str:
        """As VolumeBackend.device."""
        image = self.image(volume.id)
        try:
            return loop_device.device_node(images.ensure_attached(image, read_only=read_only))
        except OSError as error:
            raise from_oserror(error, f"attaching volume {volume.id}") from error

    def detach(self, volume_id: str) -> None:
        """Until nobody holds a device of it; Unavailable says who does."""
        self._detach(volume_id, *self._devices(volume_id))

    def _detach(self, volume_id: str, numbers: Sequence[int], image: str) -> None:
        try:
            device_release.release(numbers, image, f"volume {volume_id}")
        except OSError as error:
            raise from_oserror(error, f"detaching volume {volume_id}") from error
        self._pending.discard(volume_id)

    def grow(self, volume: Volume, mounted: str) -> None:
        """As VolumeBackend.grow."""
        image = self.image(volume.id)
        try:
            for number in loop_device.find(image):
                loop_device.resize(number)
                failpoint.hit("volume.grow.device")
            if mounted and volume.access == "mount":
                image_filesystem.grow(mounted, volume.fs_type, os.stat(image).st_size)
                self._pending.discard(volume.id)
        except FailedPrecondition:
            self._pending.add(volume.id)
            raise
        except OSError as error:
            raise from_oserror(error, f"growing volume {volume.id}") from error

    def usage(self, volume: Volume, mounted: str) -> Usage:
        """As VolumeBackend.usage."""
        if volume.access == "mount":
            return sizes.mount_usage(mounted)
        used = min(os.stat(self.image(volume.id)).st_blocks * 512, volume.size)
        return Usage(volume.size, volume.size - used, used)

    def problems(self, volume: Volume, mounted: str) -> list[Problem]:
        """As VolumeBackend.problems."""
        found = health.image_problems(os.path.join(self._layout.volume(volume.id), images.NAME), volume.size)
        if not mounted:
            return found
        if volume.access == "block":
            number = parse_decimal(os.path.basename(mounted).removeprefix("loop"))
            return [*found, *(() if number is None else health.device_problems(number))]
        found += health.mount_problems(mounted)
        if volume.fs_type == "xfs" and not found and self._shut_down.is_shut_down(mounted):
            found.append(Problem("FilesystemError", f"xfs at {mounted} shut down after an error"))
        if volume.id in self._pending:
            found.append(Problem("ExpansionPending", "its file system grows when it is mounted the next time"))
        return found


def _claimed(numbers: Sequence[int]) -> int | None:
    """The one that a file system is mounted from."""
    return next((number for number in numbers if loop_device.is_claimed(number)), None)


def _mount_again(numbers: Sequence[int], volume: Volume, flags: mount_flags.MountFlags) -> int | None:
    """One more mount of a file system that is mounted; None when it is not, or is no more."""
    number = _claimed(numbers)
    if number is None:
        return None
    try:
        return image_filesystem.mount(number, volume.fs_type, flags)
    except (OSError, TrivetError):
        if loop_device.is_claimed(number):
            raise
        return None  # its last holder has gone meanwhile


def _open_marked(volume_id: str, mark: str) -> int | None:
    text, _blank, fs_type = mark.partition(" ")
    number = parse_decimal(text)
    if number is None or fs_type not in image_filesystem.FILE_SYSTEMS:
        return None  # torn: the driver died before it froze anything
    if not loop_device.backing_file(number).removesuffix(" (deleted)").endswith(f"/{volume_id}/{images.NAME}"):
        return None  # the node was started again
    return image_filesystem.superblock_root(number, fs_type) if loop_device.is_claimed(number) else None
