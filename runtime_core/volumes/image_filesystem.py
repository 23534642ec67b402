"""The file system in an image: made once, checked after a crash, grown to the image, mounted."""

from __future__ import annotations

import errno
import os

from runtime_core.errors import DataLoss, FailedPrecondition, InvalidArgument, TrivetError
from runtime_core.kernel import capabilities, failpoint, filesystems, loop_device, mounts, paths, syscalls
from runtime_core.volumes import images, programs, superblock
from runtime_core.volumes.mount_flags import MountFlags
from runtime_core.volumes.sizes import MIB

FILE_SYSTEMS = ("ext4", "xfs")
SMALLEST = {"": MIB, "ext4": 8 * MIB, "xfs": 300 * MIB}
#: says that mkfs ended: without it nobody ever mounted the image
_MADE = "made"
_MKFS = {
    # -m 0: the blocks are the user's; lazy: the tables are zero already, in a new file
    "ext4": (
        ("mkfs.ext4", "-q", "-F", "-m", "0", "-e", "remount-ro", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
        "e2fsprogs",
    ),
    "xfs": (("mkfs.xfs", "-q", "-f", "-K"), "xfsprogs"),
}
_E2FSCK_GOOD = (0, 1)  # nothing wrong, or put right


def preferred() -> tuple[str, ...]:
    """Those of FILE_SYSTEMS, first what can be grown here while it is mounted: ext4 wants CAP_SYS_RESOURCE for that."""
    if "CAP_SYS_RESOURCE" in capabilities.machine() or not programs.is_installed("mkfs.xfs") or not _knows_xfs():
        return FILE_SYSTEMS
    return ("xfs", "ext4")


def _knows_xfs() -> bool:
    """Whether this kernel has it without loading a module, which may not be there."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == "xfs" for line in file)


def mark_made(directory: str) -> None:
    with open(os.path.join(directory, _MADE), "w"):
        pass


def is_made(directory: str) -> bool:
    return os.path.exists(os.path.join(directory, _MADE))


def prepare(directory: str, fs_type: str, seconds: float) -> None:
    """Let the image in `directory`, attached nowhere, hold a file system that can be mounted and fills it."""
    image = os.path.join(directory, images.NAME)
    if not is_made(directory):
        _make(directory, image, fs_type, seconds)
        return
    found = superblock.read(image)
    if found is None or found.fs_type != fs_type:
        raise FailedPrecondition(f"the volume holds {found.fs_type if found else 'no file system that is known'}, not {fs_type}")
    if fs_type == "ext4":
        _check_and_grow_ext4(image, found, seconds)


def _make(directory: str, image: str, fs_type: str, seconds: float) -> None:
    command, package = _MKFS[fs_type]
    images.clear_content(image)  # of what a mkfs that was killed wrote
    programs.run_program((*command, image), package, seconds)
    failpoint.hit("volume.mount.formatted")
    _sync(image)
    mark_made(directory)
    paths.sync_directory(directory)


def _check_and_grow_ext4(image: str, found: superblock.Superblock, seconds: float) -> None:
    grows = found.size + MIB <= os.stat(image).st_size
    if not found.clean or grows:
        try:
            # resize2fs takes nothing that was not checked in full
            programs.run_program(("e2fsck", "-p", *(("-f",) if grows else ()), image), "e2fsprogs", seconds, good=_E2FSCK_GOOD)
        except TrivetError as error:
            if type(error) is not TrivetError:
                raise
            raise DataLoss(f"the file system has errors that only a person can repair (e2fsck {image}): {error}") from error
    if grows:
        failpoint.hit("volume.mount.checked")
        programs.run_program(("resize2fs", image), "e2fsprogs", seconds)


def mount(number: int, fs_type: str, flags: MountFlags) -> int:
    """A detached mount of what the loop device holds, or one more of a file system that is mounted already."""
    options = [*flags.options, *(("nouuid",) if fs_type == "xfs" else ())]  # a clone has its source's UUID
    claimed = loop_device.is_claimed(number)
    if flags.read_only and not claimed:
        options.append("ro")
    try:
        return mounts.filesystem(fs_type, options, flags.attributes, loop_device.device_node(number))
    except OSError as error:
        if claimed and flags.read_only and error.errno == errno.EBUSY:  # it is read-only as a whole
            return mounts.filesystem(fs_type, [*options, "ro"], flags.attributes, loop_device.device_node(number))
        if claimed and error.errno == errno.EBUSY:
            raise FailedPrecondition("the volume is mounted read-only; it cannot be mounted for writing as well") from error
        if error.errno == errno.EINVAL and flags.options:
            raise InvalidArgument(f"mount_flags: {error}") from error
        raise


def superblock_root(number: int, fs_type: str) -> int | None:
    """A directory of the file system on the device, wherever it is mounted; None when it is read-only, or mounted no more."""
    options = ["nouuid"] if fs_type == "xfs" else []
    try:
        mounted = mounts.filesystem(fs_type, options, syscalls.MOUNT_ATTR_NOATIME, loop_device.device_node(number))
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EROFS, errno.EACCES) or not loop_device.is_claimed(number):
            return None
        raise
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)


def grow(mounted: str, fs_type: str, size: int) -> None:
    """Let the file system mounted at `mounted` fill its device, which has `size` bytes."""
    root = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (filesystems.grow_xfs if fs_type == "xfs" else filesystems.grow_ext4)(root, size)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EROFS, errno.EOPNOTSUPP):
            raise
        why = {errno.EPERM: "the driver lacks CAP_SYS_RESOURCE", errno.EROFS: "it is mounted read-only"}.get(
            error.errno or 0, "this kernel cannot"
        )
        raise FailedPrecondition(
            f"ExpansionPending: {fs_type} cannot be grown while it is mounted ({why}); it grows at the next mount"
        ) from error
    finally:
        os.close(root)


def _sync(image: str) -> None:
    descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
