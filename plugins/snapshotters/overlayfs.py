"""trivet.snapshotter overlayfs: a directory per layer, an upper directory per container.

    layers/<hex>/fs         a committed layer, hex = first 32 digits of its chain ID
    stage/<hex>/fs          one that is being unpacked
    snapshots/<key>/…       upper, work, and snapshot.json: the chain IDs that it stands on
    trash/                  renamed away, deleted in the background

It mounts nothing: a container's init mounts the overlay in its own mount namespace.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from runtime_core.errors import AlreadyExists, InvalidArgument, NotFound, from_oserror
from runtime_core.interfaces.runtime import RootMount
from runtime_core.interfaces.snapshotter import Usage
from runtime_core.kernel import failpoint, paths

_CHAIN_ID = re.compile(r"[a-z0-9]+:[0-9a-f]{32,}")
_RECORD = "snapshot.json"


class OverlayfsSnapshotter:
    """See runtime_core.interfaces.snapshotter."""

    def __init__(self, root: Path) -> None:
        self._layers, self._stages = root / "layers", root / "stage"
        self._snapshots, self._trash = root / "snapshots", root / "trash"
        #: chain ID → what a layer takes, counted at the first question
        self._layer_usage: dict[str, Usage] = {}
        for directory in (root, self._layers, self._stages, self._snapshots, self._trash):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in self._stages.iterdir():
            self._discard(entry)
        self._empty_trash()

    def stage(self, chain_id: str, parent: str) -> str:
        if parent and not self.has(parent):
            raise NotFound(f"parent layer {parent} is not committed")
        directory = self._stages / _short(chain_id)
        self._discard(directory)
        (directory / "fs").mkdir(mode=0o755, parents=True)
        (directory / "chain").write_text(chain_id)
        return str(directory / "fs")

    def commit(self, chain_id: str) -> None:
        stage, layer = self._stages / _short(chain_id), self._layers / _short(chain_id)
        if layer.exists():
            self.abandon(chain_id)
            return
        try:
            paths.sync_directory(str(stage))
            failpoint.hit("snapshotter.commit.before")
            stage.rename(layer)
            paths.sync_directory(str(self._layers))
        except OSError as error:
            raise from_oserror(error, f"committing layer {chain_id}") from error

    def abandon(self, chain_id: str) -> None:
        self._discard(self._stages / _short(chain_id))

    def has(self, chain_id: str) -> bool:
        return (self._layers / _short(chain_id)).is_dir()

    def layers(self) -> list[str]:
        found = []
        for entry in self._layers.iterdir():
            try:
                found.append((entry / "chain").read_text())
            except FileNotFoundError:
                continue  # removed meanwhile
        return found

    def remove_layer(self, chain_id: str) -> None:
        self._layer_usage.pop(chain_id, None)
        self._discard(self._layers / _short(chain_id))

    def prepare(self, key: str, chain_ids: Sequence[str], *, read_only: bool = False) -> RootMount:
        directory = self._snapshots / _checked(key)
        root = self._mount(directory, chain_ids, read_only=read_only)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            raise AlreadyExists(f"snapshot {key} exists") from None
        try:
            (directory / "upper").mkdir(mode=0o755)
            (directory / "work").mkdir(mode=0o700)
            (directory / _RECORD).write_text(json.dumps({"layers": list(chain_ids), "read_only": read_only}))
        except OSError as error:
            self._discard(directory)
            raise from_oserror(error, f"preparing snapshot {key}") from error
        return root

    def view(self, chain_ids: Sequence[str]) -> RootMount:
        return RootMount(type="overlay", lower=self._lower(chain_ids), read_only=True)

    def mount(self, key: str) -> RootMount:
        directory = self._snapshots / _checked(key)
        try:
            record = json.loads((directory / _RECORD).read_text())
        except FileNotFoundError:
            raise NotFound(f"snapshot {key} does not exist") from None
        return self._mount(directory, record["layers"], read_only=record["read_only"])

    def remove(self, key: str) -> None:
        self._discard(self._snapshots / _checked(key))

    def snapshots(self) -> list[str]:
        return [entry.name for entry in self._snapshots.iterdir()]

    def layers_in_use(self) -> set[str]:
        found: set[str] = set()
        for key in self.snapshots():
            try:
                found |= set(json.loads((self._snapshots / key / _RECORD).read_text())["layers"])
            except FileNotFoundError:
                continue  # half-made: it stands on nothing yet
        return found

    def layer_usage(self, chain_id: str) -> Usage:
        found = self._layer_usage.get(chain_id)
        if found is None:
            if not self.has(chain_id):
                raise NotFound(f"layer {chain_id} is not there")
            found = self._layer_usage[chain_id] = _used(self._layers / _short(chain_id) / "fs")
        return found

    def usage(self, key: str) -> Usage:
        return _used(self._snapshots / _checked(key) / "upper")

    def _mount(self, directory: Path, chain_ids: Sequence[str], *, read_only: bool) -> RootMount:
        return RootMount(
            type="overlay",
            lower=self._lower(chain_ids),
            upper=str(directory / "upper"),
            work=str(directory / "work"),
            read_only=read_only,
        )

    def _lower(self, chain_ids: Sequence[str]) -> list[str]:
        for chain_id in chain_ids:
            if not self.has(chain_id):
                raise NotFound(f"layer {chain_id} is not committed")
        return [str(self._layers / _short(chain_id) / "fs") for chain_id in reversed(chain_ids)]

    def _discard(self, path: Path) -> None:
        """Out of sight at once, off the disk soon."""
        target = self._trash / os.urandom(16).hex()
        try:
            path.rename(target)
        except FileNotFoundError:
            return
        threading.Thread(target=_delete, args=(target,), daemon=True).start()

    def _empty_trash(self) -> None:
        for entry in self._trash.iterdir():
            threading.Thread(target=_delete, args=(entry,), daemon=True).start()


def _short(chain_id: str) -> str:
    if not _CHAIN_ID.fullmatch(chain_id):
        raise InvalidArgument(f"{chain_id!r} is not a chain ID")
    algorithm, _colon, digits = chain_id.partition(":")
    return digits[:32] if algorithm == "sha256" else f"{algorithm}-{digits[:32]}"


def _checked(key: str) -> str:
    if not key or "/" in key or key.startswith("."):
        raise InvalidArgument(f"{key!r} cannot name a snapshot")
    return key


def _delete(path: Path) -> None:
    """However deep a container has made it."""
    from runtime_core.volumes import tree  # here: in most lives nothing is deleted for a while

    try:
        tree.remove(str(path))
    except OSError:
        return  # it is out of the way, and the next start tries again


def _used(directory: Path) -> Usage:
    """Blocks and inodes of a tree that others may change meanwhile, as deep as the kernel takes a path."""
    size = inodes = 0
    pending = [str(directory)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    inodes += 1
                    status = entry.stat(follow_symlinks=False)
                    size += status.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENAMETOOLONG):
                raise
    return Usage(size, inodes)
