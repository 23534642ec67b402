"""The directory of a back end: volumes and snapshots appear and disappear atomically.

volumes/<id>/…      a volume; half-made while its content is not named yet
snapshots/<id>/…    a snapshot, always whole
groups/<id>.part/   snapshots that are being made, a directory for each
groups/<id>/        the same, all of them made: what remains is to move them to snapshots/
frozen/<id>         this volume's file system is frozen, or was when the driver died
trash/…             renamed away, being deleted
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, from_oserror
from runtime_core.interfaces.volume import ID
from runtime_core.kernel import failpoint, paths


class Layout:
    """Paths of volumes and snapshots below one directory."""

    def __init__(self, directory: str, remove: Callable[[str], None]) -> None:
        """`remove` deletes what a path names, whatever it is."""
        self._remove = remove
        self.root = directory
        self._volumes, self._snapshots, self._groups, self._trash, self.frozen = (
            os.path.join(directory, name) for name in ("volumes", "snapshots", "groups", "trash", "frozen")
        )
        for path in (directory, self._volumes, self._snapshots, self._groups, self._trash, self.frozen):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def recover(self) -> None:
        """End what the driver before this one began and did not end."""
        for name in os.listdir(self._groups):
            if name.endswith(".part"):
                os.rename(os.path.join(self._groups, name), os.path.join(self._trash, os.urandom(16).hex()))
            else:
                self._publish(name)
        for name in os.listdir(self._trash):
            try:
                self._remove(os.path.join(self._trash, name))
            except OSError:
                continue  # out of sight, and tried again by the next driver

    def volume(self, volume_id: str) -> str:
        """The volume's directory; InvalidArgument for an id that cannot be."""
        return os.path.join(self._volumes, check_id(volume_id))

    def snapshot(self, snapshot_id: str) -> str:
        """The snapshot's directory; InvalidArgument for an id that cannot be."""
        return os.path.join(self._snapshots, check_id(snapshot_id))

    def snapshot_file(self, snapshot_id: str, name: str) -> str:
        """NotFound when the snapshot has none of this name."""
        path = os.path.join(self.snapshot(snapshot_id), name)
        if not os.path.exists(path):
            raise NotFound(f"snapshot {snapshot_id} does not exist")
        return path

    def volumes(self) -> set[str]:
        """Ids of all volumes on disk."""
        return set(os.listdir(self._volumes))

    def snapshots(self) -> set[str]:
        """Ids of all snapshots on disk."""
        return set(os.listdir(self._snapshots))

    @contextmanager
    def new_volume(self, volume_id: str) -> Iterator[str]:
        """The directory of a new volume, empty; nothing of it is left when the block fails."""
        path = self.volume(volume_id)
        self.discard(path)
        os.mkdir(path, 0o700)
        failpoint.hit("volume.create.directory")
        try:
            yield path
            paths.sync_directory(path)
            paths.sync_directory(self._volumes)
        except BaseException:
            self.discard(path)
            raise
        failpoint.hit("volume.create.named")

    @contextmanager
    def new_snapshots(self, snapshot_ids: Sequence[str]) -> Iterator[dict[str, str]]:
        """A directory for each new snapshot; they become snapshots together, or none does.

        Nothing to make (an empty dict) when they are there already.
        """
        existing = [snapshot_id for snapshot_id in snapshot_ids if os.path.isdir(self.snapshot(snapshot_id))]
        if existing and len(existing) < len(set(snapshot_ids)):
            raise FailedPrecondition(f"snapshot {existing[0]} exists, others of its group do not")
        if existing or not snapshot_ids:
            yield {}
            return
        group = os.path.join(self._groups, snapshot_ids[0])
        part = group + ".part"
        self.discard(part)
        os.mkdir(part, 0o700)
        made = {snapshot_id: os.path.join(part, snapshot_id) for snapshot_id in snapshot_ids}
        try:
            for path in made.values():
                os.mkdir(path, 0o700)
            yield made
            for path in (*made.values(), part):
                paths.sync_directory(path)
        except BaseException:
            self.discard(part)
            raise
        failpoint.hit("volume.snapshot.cloned")
        os.rename(part, group)
        paths.sync_directory(self._groups)
        failpoint.hit("volume.snapshot.committed")
        self._publish(snapshot_ids[0])

    def _publish(self, group: str) -> None:
        path = os.path.join(self._groups, group)
        for name in os.listdir(path):
            os.rename(os.path.join(path, name), os.path.join(self._snapshots, name))
            failpoint.hit("volume.snapshot.published")
        paths.sync_directory(self._snapshots)
        os.rmdir(path)

    def delete_volume(self, volume_id: str) -> None:
        """Delete the volume's directory. Idempotent."""
        try:
            self.discard(self.volume(volume_id))
        except OSError as error:
            raise from_oserror(error, f"deleting volume {volume_id}") from error

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete the snapshot's directory. Idempotent."""
        try:
            self.discard(self.snapshot(snapshot_id))
        except OSError as error:
            raise from_oserror(error, f"deleting snapshot {snapshot_id}") from error

    def discard(self, path: str) -> None:
        """Out of sight at once, then deleted. Nothing when there is nothing."""
        target = os.path.join(self._trash, os.urandom(16).hex())
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return
        failpoint.hit("volume.delete.hidden")
        self._remove(target)


def check_id(identifier: str) -> str:
    """`identifier`, which becomes part of a path; InvalidArgument when it cannot."""
    if not ID.fullmatch(identifier):
        raise InvalidArgument(f"{identifier!r} is not an id of this driver")
    return identifier
