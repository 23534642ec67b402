"""Watching volumes that are in use: mounts that vanish, devices that change or go, file systems that find an error.

Woken by the kernel alone: poll(2) on the mount table and on ext4's count of errors, uevents of block devices.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from pathlib import Path

import pyudev  # type: ignore[import-untyped]

from csi_driver.node import health, mount_table
from csi_driver.records.node_state import LONGEST_CHANGE
from csi_driver.records.schema import VolumeRecord
from csi_driver.service import Service
from runtime_core.errors import TrivetError

_EXT4 = "/sys/fs/ext4/{}/errors_count"
_CHANGED = select.POLLPRI | select.POLLERR


def start_watch(service: Service) -> Watch:
    """A watch that runs until it is closed."""
    watch = Watch(service)
    watch.start()
    return watch


class Watch:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._poll = select.poll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._devices = _block_events(service)
        #: (volume id, whether to look at it)
        self._told: deque[tuple[str, bool]] = deque()
        self._is_ended = False
        #: volume id → "major:minor" of what it is mounted from or attached to
        self._device_of: dict[str, str] = {}
        #: volume id → (descriptor, volume) of ext4's count of errors
        self._errors: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, name="node-watch", daemon=True)

    def start(self) -> None:
        """Start the thread, and look at every volume in use once."""
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._mounts, _CHANGED)
        if self._devices is not None:
            self._poll.register(self._devices.fileno(), select.POLLIN)
        self._service.node.on_change(self._notify)
        self._thread.start()
        for record in self._in_use():
            self._notify(record.id, True)

    def close(self) -> None:
        """End the thread and close its descriptors."""
        self._is_ended = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        for descriptor in (self._wake, self._mounts, *self._errors.values()):
            os.close(descriptor)

    def _notify(self, volume_id: str, is_suspect: bool) -> None:
        self._told.append((volume_id, is_suspect))
        os.eventfd_write(self._wake, 1)

    def _in_use(self) -> list[VolumeRecord]:
        return [record for record in self._service.records.volumes.all() if record.staging or record.targets]

    def _run(self) -> None:
        self._read_mounts()
        is_unread = False
        while True:
            # Only a change that hangs, of which nobody would tell the end, makes it look at the clock.
            timeout = int(LONGEST_CHANGE * 1000) if is_unread else None
            woken = {descriptor for descriptor, _events in self._poll.poll(timeout)}
            if self._is_ended:
                return
            try:
                is_unread = self._see(woken, is_unread)
            except Exception:  # noqa: BLE001  the edge of the thread: one look fails, and not all that would come
                self._report_error()

    def _report_error(self) -> None:
        import traceback  # here: nothing unforeseen happens in most lives

        self._service.log.error("unforeseen", where="watch", trace=traceback.format_exc())

    def _see(self, woken: set[int], is_unread: bool) -> bool:
        """Look at what these descriptors tell of; whether the mount table has yet to be read."""
        suspects = self._pending_suspects() if self._wake in woken else set()
        suspects |= self._read_errors(woken)
        is_unread = is_unread or not woken.isdisjoint((self._mounts, self._wake))
        if is_unread and self._service.node.is_quiet():
            suspects |= self._read_mounts()
            is_unread = False
        if self._devices is not None and self._devices.fileno() in woken:
            suspects |= self._read_devices()
        for volume_id in suspects:
            self._inspect(volume_id)
        return is_unread

    def _inspect(self, volume_id: str) -> None:
        record = self._service.records.volumes.find(volume_id)
        if record is None or not (record.staging or record.targets):
            self._service.node.forget(volume_id)
            return
        try:
            health.inspect_volume(self._service, record)
        except (TrivetError, OSError) as error:
            self._service.log.warning("health", volume=volume_id, error=str(error))

    def _pending_suspects(self) -> set[str]:
        os.eventfd_read(self._wake)
        suspects = set()
        while self._told:
            volume_id, is_suspect = self._told.popleft()
            if is_suspect:
                suspects.add(volume_id)
        return suspects

    def _read_mounts(self) -> set[str]:
        """Learn what is mounted from where; volumes that should be mounted and are not."""
        mounted = mount_table.mounts_below(self._service.settings.kubelet_dir)
        gone = set()
        devices = {}
        for record in self._in_use():
            at = record.staging.path if record.staging and record.access == "mount" else next(iter(record.targets), "")
            mount = mounted.get(at)
            if record.access == "block":
                devices[record.id] = self._number(record.id)
            elif mount is not None:
                devices[record.id] = mount.device
                self._watch_errors(record.id, mount)
            if any(path not in mounted for path in record.targets) or (at and mount is None):
                gone.add(record.id)
            elif self._service.node.problems(record.id):
                gone.add(record.id)  # it may be well again
        self._device_of = devices
        for volume_id in set(self._errors) - set(devices):
            self._unwatch_errors(volume_id)
        return gone

    def _number(self, volume_id: str) -> str:
        node = self._service.node.devices.get(volume_id)
        try:
            return "" if node is None else _device_number(os.stat(node).st_rdev)
        except FileNotFoundError:
            return ""

    def _read_errors(self, woken: set[int]) -> set[str]:
        """Volumes whose file system has counted one more; one that is gone wakes too, and is watched no more."""
        counted = set()
        for volume_id, descriptor in list(self._errors.items()):
            if descriptor in woken:
                try:
                    _read_count(descriptor)
                    counted.add(volume_id)
                except OSError as error:
                    if error.errno != errno.ENODEV:
                        raise
                    self._unwatch_errors(volume_id)
                    os.eventfd_write(self._wake, 1)  # the mount table may have been read before this: there may be the next one
        return counted

    def _watch_errors(self, volume_id: str, mount: mount_table.Mount) -> None:
        """ext4 tells of every error that it finds (fs/ext4/super.c, ext4_notify_error_sysfs)."""
        if volume_id in self._errors or mount.fs_type != "ext4":
            return
        path = _EXT4.format(Path(mount.source).name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # an older kernel, or a /sys without it
        try:
            _read_count(descriptor)  # poll(2) tells of what comes after it was read
        except OSError:
            os.close(descriptor)
            return  # unmounted meanwhile, which the mount table tells
        self._errors[volume_id] = descriptor
        self._poll.register(descriptor, _CHANGED)

    def _unwatch_errors(self, volume_id: str) -> None:
        descriptor = self._errors.pop(volume_id)
        self._poll.unregister(descriptor)
        os.close(descriptor)

    def _read_devices(self) -> set[str]:
        """Volumes on devices that changed or went."""
        assert self._devices is not None
        numbers = set()
        while (device := self._devices.poll(timeout=0)) is not None:
            if device.action != "add":
                numbers.add(_device_number(device.device_number))
        return {volume_id for volume_id, number in self._device_of.items() if number in numbers}


def _block_events(service: Service) -> pyudev.Monitor | None:
    """The kernel's own, which come without a udevd too."""
    try:
        monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        monitor.filter_by("block")
        monitor.start()
    except (OSError, ImportError) as error:
        service.log.warning(
            "watch", what="events of block devices cannot be had; they are looked at when asked", error=str(error)
        )
        return None
    return monitor


def _read_count(descriptor: int) -> None:
    os.pread(descriptor, 64, 0)


def _device_number(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"
