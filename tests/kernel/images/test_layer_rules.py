"""What a layer means: the table of docs/image-layers.md on overlayfs, and what is taken over from the layers below."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plugins.snapshotters.overlayfs import OverlayfsSnapshotter
from runtime_core.container import root_mount
from runtime_core.errors import DataLoss, InvalidArgument, TrivetError
from runtime_core.images.manifest import chain_ids
from runtime_core.images.unpack import Layers
from runtime_core.launcher.client import Launcher
from tests.support.layer_cases import REFUSED, Case, cases, tree

_LIMIT = 1 << 20


class Node:
    """Layers on an overlayfs snapshotter."""

    def __init__(self, directory: Path, launcher: Launcher) -> None:
        self._directory = directory
        self._snapshotter = OverlayfsSnapshotter(directory / "overlayfs")
        self._layers = Layers(self._snapshotter, launcher, _LIMIT)

    @contextmanager
    def unpacked(self, *archives: bytes) -> Iterator[Path]:
        """The layers as one tree, read-only."""
        diff_ids = [f"sha256:{hashlib.sha256(archive).hexdigest()}" for archive in archives]
        chains = chain_ids(diff_ids)
        for number, archive in enumerate(archives):
            blob = self._directory / "blob"
            blob.write_bytes(archive)
            self._layers.ensure(blob, diff_ids[number], chains[: number + 1])
        mounted = root_mount.mount(dataclasses.asdict(self._snapshotter.view(chains)))
        try:
            yield Path(f"/proc/self/fd/{mounted}")
        finally:
            os.close(mounted)


@pytest.fixture
def node(tmp_path: Path, launcher: Launcher) -> Node:
    return Node(tmp_path, launcher)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_layer_means_what_the_table_says(case: Case, node: Node) -> None:
    """With the members in the order of the table."""
    if case.result == (REFUSED,):
        with pytest.raises((DataLoss, InvalidArgument)), node.unpacked(*case.archives()):
            pass
        return
    with node.unpacked(*case.archives()) as root:
        assert tree(root) == case.result


def _layer(*members: tuple[str, dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, changes in members:
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            for key, value in changes.items():
                setattr(member, key, value)
            archive.addfile(member)
    return buffer.getvalue()


_BELOW = ("d/", {"mode": 0o2751, "uid": 7, "gid": 8, "mtime": 1000, "pax_headers": {"SCHILY.xattr.user.k": "v"}})


@pytest.mark.parametrize(
    "members", [(("d/f", {}),), (("d/f", {}), ("d/.wh.x", {})), (("d/.wh..wh..opq", {}),), (("d/.wh.g", {}),)]
)
def test_a_directory_that_is_not_described_is_as_below(members: tuple[tuple[str, dict[str, object]], ...], node: Node) -> None:
    """Owner, mode, attributes and time, through a layer that says nothing of it."""
    with node.unpacked(_layer(_BELOW, ("d/g", {})), _layer(("other", {})), _layer(*members)) as root:
        status = (root / "d").stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o2751, 7, 8, 1000)
        assert os.getxattr(root / "d", "user.k") == b"v"


@pytest.mark.parametrize("order", [1, -1])
def test_a_directory_whose_predecessor_is_hidden_is_a_new_one(order: int, node: Node) -> None:
    """Here or between."""
    members = (("d/f", {}), (".wh.d", {}))[::order]
    for archives in ([_layer(_BELOW), _layer(*members)], [_layer(_BELOW), _layer((".wh.d", {})), _layer(("d/f", {}))]):
        with node.unpacked(*archives) as root:
            status = (root / "d").stat()
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o755, 0, 0)
            assert os.listxattr(root / "d") == []


def test_described_directories_keep_their_time(node: Node) -> None:
    """Whatever is made or hidden in them afterwards."""
    upper = _layer(("d/", {"mtime": 2000}), ("d/f", {}), ("d/.wh.g", {}), ("e/", {"mtime": 3000}), ("e/h", {}))
    with node.unpacked(_layer(_BELOW, ("d/g", {})), upper) as root:
        assert ((root / "d").stat().st_mtime, (root / "e").stat().st_mtime) == (2000, 3000)


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh."])
def test_a_whiteout_of_nothing_that_can_be_is_refused(name: str, node: Node) -> None:
    """An empty name, "." and ".."."""
    with pytest.raises(TrivetError, match="is not a whiteout"), node.unpacked(_layer((name, {}))):
        pass


_PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
_MEMBERS = st.one_of(
    _PATHS,
    _PATHS.map(lambda path: f"{path}/"),
    _PATHS.map(lambda path: "/".join([*path.split("/")[:-1], f".wh.{path.split('/')[-1]}"])),
    _PATHS.map(lambda path: f"{path}/.wh..wh..opq"),
)
_LAYERS = st.lists(st.lists(_MEMBERS, max_size=6), min_size=2, max_size=3)


def _applied(below: dict[str, str], members: list[str], content: str) -> dict[str, str]:
    """The rules, without a file system: whiteouts first, then one member after the other."""
    hidden = {member.replace(".wh.", "") for member in members if ".wh." in member and not member.endswith(".opq")}
    opaque = {member.removesuffix("/.wh..wh..opq") for member in members if member.endswith(".opq")}
    found = {path: kind for path, kind in below.items() if not {path, *_above(path)} & hidden and not set(_above(path)) & opaque}
    for member in (member for member in members if ".wh." not in member):
        path = member.rstrip("/")
        for directory in (*_above(path), *([path] if member.endswith("/") else [])):
            if found.get(directory) != "/":
                found = _without(found, directory)
                found[directory] = "/"
        if not member.endswith("/"):
            found = _without(found, path)
            found[path] = f":{content}"
    return found


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _without(found: dict[str, str], path: str) -> dict[str, str]:
    return {known: kind for known, kind in found.items() if path not in (known, *_above(known))}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers=_LAYERS)
def test_any_layers_come_to_what_the_rules_say(layers: list[list[str]], node: Node) -> None:
    """In any order of whiteouts and members."""
    expected: dict[str, str] = {}
    for number, members in enumerate(layers):
        expected = _applied(expected, members, str(number + 1))
    case = Case("any", tuple(map(tuple, layers)), (), (), ())
    with node.unpacked(*case.archives()) as root:
        assert tree(root) == tuple(sorted(path + kind for path, kind in expected.items()))
