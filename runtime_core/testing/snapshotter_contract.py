"""The contract suite of `trivet.snapshotter`; who writes a driver subclasses it and overrides `make_snapshotter`.

class TestMine(SnapshotterContract):
    @pytest.fixture
    def make_snapshotter(self, tmp_path):
        return lambda: Mine(tmp_path / "mine")
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime_core.container import root_mount
from runtime_core.errors import AlreadyExists, InvalidArgument, NotFound
from runtime_core.interfaces.runtime import RootMount
from runtime_core.interfaces.snapshotter import Snapshotter
from runtime_core.kernel import mounts
from runtime_core.testing.namespaces import mount_namespace

BASE, UPPER, OTHER = (f"sha256:{hashlib.sha256(name).hexdigest()}" for name in (b"base", b"upper", b"other"))


class SnapshotterContract:
    @pytest.fixture
    def make_snapshotter(self, tmp_path: Path) -> Callable[[], Snapshotter]:
        """What makes one driver object more on the same storage, as the next daemon would."""
        raise NotImplementedError("override make_snapshotter")

    @pytest.fixture
    def snapshotter(self, make_snapshotter: Callable[[], Snapshotter]) -> Snapshotter:
        """The driver under test."""
        return make_snapshotter()

    # -- layers

    def test_a_layer_is_there_once_it_is_committed(self, snapshotter: Snapshotter) -> None:
        """And not before."""
        Path(snapshotter.stage(BASE, ""), "file").write_text("base")
        assert not snapshotter.has(BASE)
        assert snapshotter.layers() == []
        snapshotter.commit(BASE)
        assert snapshotter.has(BASE)
        assert snapshotter.layers() == [BASE]

    def test_commit_twice(self, snapshotter: Snapshotter) -> None:
        """The second one changes nothing, whether or not it was staged again."""
        layer(snapshotter, BASE, {"file": "first"})
        snapshotter.commit(BASE)
        Path(snapshotter.stage(BASE, ""), "file").write_text("second")
        snapshotter.commit(BASE)
        with mounted(snapshotter.view([BASE])) as root:
            assert (root / "file").read_text() == "first"

    def test_what_is_not_staged_cannot_be_committed(self, snapshotter: Snapshotter) -> None:
        """NotFound, and there is no such layer."""
        with pytest.raises(NotFound):
            snapshotter.commit(BASE)
        assert not snapshotter.has(BASE)

    def test_a_stage_is_empty(self, snapshotter: Snapshotter) -> None:
        """What an interrupted attempt left is gone; and it is private."""
        Path(snapshotter.stage(BASE, ""), "half").write_text("x")
        directory = snapshotter.stage(BASE, "")
        assert os.listdir(directory) == []
        assert any(not parent.stat().st_mode & 0o077 for parent in Path(directory).parents)

    def test_abandon_twice(self, snapshotter: Snapshotter) -> None:
        """What was staged is gone, and the second one succeeds."""
        snapshotter.stage(BASE, "")
        snapshotter.abandon(BASE)
        snapshotter.abandon(BASE)
        with pytest.raises(NotFound):
            snapshotter.commit(BASE)

    def test_a_parent_must_be_committed(self, snapshotter: Snapshotter) -> None:
        """NotFound names it."""
        with pytest.raises(NotFound, match=BASE):
            snapshotter.stage(UPPER, BASE)

    def test_remove_layer_twice(self, snapshotter: Snapshotter) -> None:
        """It is gone, and the second one succeeds."""
        layer(snapshotter, BASE, {"file": "x"})
        for _time in range(2):
            snapshotter.remove_layer(BASE)
            assert not snapshotter.has(BASE)
            assert snapshotter.layers() == []

    @pytest.mark.parametrize("chain_id", ["", "sha256:", "sha256:../../x", "../x:ab"])
    def test_what_is_no_chain_id_is_refused(self, snapshotter: Snapshotter, chain_id: str) -> None:
        """InvalidArgument, whatever is asked about it: it becomes part of a path."""
        for call in (snapshotter.has, snapshotter.commit, snapshotter.abandon, snapshotter.remove_layer):
            with pytest.raises(InvalidArgument):
                call(chain_id)
        with pytest.raises(InvalidArgument):
            snapshotter.stage(chain_id, "")

    # -- snapshots

    def test_upper_layers_are_over_lower_ones(self, snapshotter: Snapshotter) -> None:
        """Of a file in both, the upper one is seen; directories are merged."""
        layer(snapshotter, BASE, {"file": "base", "d/base": ""})
        layer(snapshotter, UPPER, {"file": "upper", "d/upper": ""}, parent=BASE)
        with mounted(snapshotter.prepare("c", [BASE, UPPER])) as root:
            assert (root / "file").read_text() == "upper"
            assert sorted(os.listdir(root / "d")) == ["base", "upper"]

    def test_whiteouts_hide_what_is_below(self, snapshotter: Snapshotter) -> None:
        """A character device 0:0 hides one file; the attribute trusted.overlay.opaque all of a directory."""
        layer(snapshotter, BASE, {"gone": "", "stays": "", "d/gone": ""})
        stage = Path(snapshotter.stage(UPPER, BASE))
        os.mknod(stage / "gone", 0o020000, 0)
        (stage / "d").mkdir()
        os.setxattr(stage / "d", "trusted.overlay.opaque", b"y")
        (stage / "d" / "new").touch()
        snapshotter.commit(UPPER)
        with mounted(snapshotter.prepare("c", [BASE, UPPER])) as root:
            assert sorted(os.listdir(root)) == ["d", "stays"]
            assert os.listdir(root / "d") == ["new"]

    def test_snapshots_share_layers_and_nothing_else(self, snapshotter: Snapshotter) -> None:
        """What one writes or deletes neither the other nor the layer sees."""
        layer(snapshotter, BASE, {"file": "base", "other": ""})
        with mounted(snapshotter.prepare("one", [BASE])) as one, mounted(snapshotter.prepare("two", [BASE])) as two:
            (one / "file").write_text("one")
            (one / "other").unlink()
            assert (two / "file").read_text() == "base"
            assert sorted(os.listdir(two)) == ["file", "other"]
        with mounted(snapshotter.view([BASE])) as layer_alone:
            assert (layer_alone / "file").read_text() == "base"

    def test_a_key_is_taken_once(self, snapshotter: Snapshotter) -> None:
        """AlreadyExists, also when two ask at once; after remove it is free."""
        layer(snapshotter, BASE, {"file": ""})

        def prepare(_number: int) -> bool:
            try:
                snapshotter.prepare("c", [BASE])
            except AlreadyExists:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(prepare, range(4))) == 1
        snapshotter.remove("c")
        assert prepare(0)

    def test_a_snapshot_needs_its_layers(self, snapshotter: Snapshotter) -> None:
        """NotFound names the one that is missing, and the key stays free."""
        layer(snapshotter, BASE, {"file": ""})
        with pytest.raises(NotFound, match=UPPER):
            snapshotter.prepare("c", [BASE, UPPER])
        assert snapshotter.snapshots() == []
        with pytest.raises(NotFound, match=UPPER):
            snapshotter.view([UPPER])

    @pytest.mark.parametrize("read_only", [False, True])
    def test_mount_gives_what_prepare_gave(self, snapshotter: Snapshotter, read_only: bool) -> None:
        """Also whether it may be written; NotFound for a key that is not there."""
        layer(snapshotter, BASE, {"file": ""})
        given = snapshotter.prepare("c", [BASE], read_only=read_only)
        assert given.read_only == read_only
        assert snapshotter.mount("c") == given
        with pytest.raises(NotFound):
            snapshotter.mount("other")

    def test_a_read_only_root_cannot_be_written(self, snapshotter: Snapshotter) -> None:
        """Neither a view nor a snapshot that was prepared so."""
        layer(snapshotter, BASE, {"file": ""})
        for root in (snapshotter.view([BASE]), snapshotter.prepare("c", [BASE], read_only=True)):
            with mounted(root) as path, pytest.raises(OSError, match="Read-only"):
                (path / "new").touch()

    def test_remove_twice(self, snapshotter: Snapshotter) -> None:
        """What was written is gone for the next snapshot of that key; the second remove succeeds."""
        layer(snapshotter, BASE, {"file": ""})
        with mounted(snapshotter.prepare("c", [BASE])) as root:
            (root / "written").touch()
        snapshotter.remove("c")
        snapshotter.remove("c")
        assert snapshotter.snapshots() == []
        with mounted(snapshotter.prepare("c", [BASE])) as root:
            assert os.listdir(root) == ["file"]

    def test_layers_in_use_are_those_of_snapshots(self, snapshotter: Snapshotter) -> None:
        """So that the others can go."""
        layer(snapshotter, BASE, {"file": ""})
        layer(snapshotter, UPPER, {"file": ""}, parent=BASE)
        layer(snapshotter, OTHER, {"file": ""})
        snapshotter.prepare("c", [BASE, UPPER])
        assert snapshotter.layers_in_use() == {BASE, UPPER}
        snapshotter.remove("c")
        assert snapshotter.layers_in_use() == set()

    def test_a_layer_takes_what_it_holds(self, snapshotter: Snapshotter) -> None:
        """Bytes on disk and inodes, the same at every question; an unknown layer is NotFound."""
        layer(snapshotter, BASE, {"etc/passwd": "x" * 100_000, "top": "y"})
        usage = snapshotter.layer_usage(BASE)
        assert 100_000 <= usage.size_bytes < 200_000
        assert usage.inodes == 3
        assert snapshotter.layer_usage(BASE) == usage
        snapshotter.remove_layer(BASE)
        with pytest.raises(NotFound):
            snapshotter.layer_usage(BASE)

    def test_usage_is_what_was_written(self, snapshotter: Snapshotter) -> None:
        """The layers count for nothing; a file and a directory count as two inodes."""
        layer(snapshotter, BASE, {"big": "x" * 1_000_000})
        root = snapshotter.prepare("c", [BASE])
        empty = snapshotter.usage("c")
        assert (empty.size_bytes, empty.inodes) == (0, 0)
        with mounted(root) as path:
            (path / "d").mkdir()
            (path / "d" / "file").write_bytes(b"x" * 200_000)
        usage = snapshotter.usage("c")
        assert 200_000 <= usage.size_bytes < 300_000
        assert usage.inodes == 2

    def test_a_tree_of_any_depth_is_counted_and_removed(self, snapshotter: Snapshotter) -> None:
        """A container makes directories that no path reaches."""
        layer(snapshotter, BASE, {"file": ""})
        with mounted(snapshotter.prepare("c", [BASE])) as root:
            current = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            for _level in range(60):
                os.mkdir("d" * 200, dir_fd=current)
                below = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=current)
                os.close(current)
                current = below
            os.close(current)
        assert 10 < snapshotter.usage("c").inodes <= 60
        snapshotter.remove("c")
        assert snapshotter.snapshots() == []

    @pytest.mark.parametrize("key", ["", "..", "a/b", ".hidden"])
    def test_what_cannot_be_a_key_is_refused(self, snapshotter: Snapshotter, key: str) -> None:
        """InvalidArgument: it becomes part of a path."""
        for call in (snapshotter.mount, snapshotter.remove, snapshotter.usage):
            with pytest.raises(InvalidArgument):
                call(key)
        with pytest.raises(InvalidArgument):
            snapshotter.prepare(key, [])

    # -- the next daemon

    def test_another_object_finds_everything(self, snapshotter: Snapshotter, make_snapshotter: Callable[[], Snapshotter]) -> None:
        """Layers and snapshots with what was written; but nothing that was only staged."""
        layer(snapshotter, BASE, {"file": "base"})
        with mounted(snapshotter.prepare("c", [BASE])) as root:
            (root / "written").touch()
        snapshotter.stage(UPPER, BASE)
        second = make_snapshotter()
        assert (second.layers(), second.snapshots(), second.layers_in_use()) == ([BASE], ["c"], {BASE})
        with mounted(second.mount("c")) as root:
            assert sorted(os.listdir(root)) == ["file", "written"]
        with pytest.raises(NotFound):
            second.commit(UPPER)

    def test_nothing_is_mounted(self, snapshotter: Snapshotter) -> None:
        """Whoever uses a root mounts it, so that it ends with its user."""
        with mount_namespace():
            before = set(mounts.current_mount_points())
            layer(snapshotter, BASE, {"file": ""})
            snapshotter.prepare("c", [BASE])
            snapshotter.view([BASE])
            assert set(mounts.current_mount_points()) <= before


def layer(snapshotter: Snapshotter, chain_id: str, files: dict[str, str], *, parent: str = "") -> None:
    """Commit a layer with these files."""
    stage = Path(snapshotter.stage(chain_id, parent))
    for name, content in files.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_text(content)
    snapshotter.commit(chain_id)


@contextmanager
def mounted(root: RootMount) -> Iterator[Path]:
    """The root as a container has it, by a mount that nobody else sees."""
    tree = root_mount.mount(dataclasses.asdict(root))
    try:
        yield Path(f"/proc/self/fd/{tree}")
    finally:
        os.close(tree)
