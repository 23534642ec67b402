"""Target and staging paths that somebody hostile chose or prepared: refused, and nothing is followed or touched."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime_core.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from runtime_core.kernel import mounts, syscalls
from tests.support.csi_node import NodeService, capability, own_mounts


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeService]:
    with own_mounts():
        node = NodeService(tmp_path)
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "precious").write_text("precious")
        yield node
        node.close()
        assert (tmp_path / "outside" / "precious").read_text() == "precious"
        assert os.listdir(tmp_path / "outside") == ["precious"]
        assert [point for point in mounts.current_mount_points() if point.startswith(str(tmp_path / "outside"))] == []


BAD = [
    "relative", "/etc/target", "/", "{kubelet}", "{kubelet}/", "{kubelet}/.", "{kubelet}/../outside/x", "{kubelet}/pods/../../outside/x",
    "{kubelet}x/y", "/proc/self/cwd", "{kubelet}/a\0b", "{kubelet}/" + "n" * 256, "{kubelet}/" + "n/" * 2100,
]  # fmt: skip


@pytest.mark.parametrize("path", BAD)
def test_what_is_not_below_the_kubelets_directory_is_refused(node: NodeService, path: str) -> None:
    """By every call that takes a path, whatever the volume's state."""
    path = path.replace("{kubelet}", str(node.kubelet))
    volume = node.volume()
    with pytest.raises(InvalidArgument, match="staging_target_path"):
        node.stage(volume, staging_target_path=path)
    node.stage(volume)
    with pytest.raises(InvalidArgument, match="^target_path"):
        node.publish(volume, target_path=path)
    with pytest.raises(InvalidArgument, match="^target_path"):
        node.publish_inline("inline", target_path=path)
    with pytest.raises(InvalidArgument, match="^target_path"):
        node.call("NodeUnpublishVolume", volume_id=volume, target_path=path)
    with pytest.raises(InvalidArgument, match="staging_target_path"):
        node.call("NodeUnstageVolume", volume_id=volume, staging_target_path=path)
    with pytest.raises(NotFound, match="volume_path"):
        node.call("NodeGetVolumeStats", volume_id=volume, volume_path=path)
    assert node.mounted() == [f"staging/{volume}"]


@pytest.mark.parametrize("to", ["/etc", "../outside", "../outside/precious", "dangling", "."])
def test_a_symlink_as_target_is_refused(node: NodeService, to: str) -> None:
    """For mount, block and inline volumes; the link stays."""
    volume, device = node.volume(), node.volume(block=True)
    node.stage(volume)
    node.stage(device, volume_capability=capability(block=True))
    target = Path(node.target())
    target.symlink_to(to)
    for publish in (
        lambda: node.publish(volume),
        lambda: node.publish(device, volume_capability=capability(block=True)),
        lambda: node.publish_inline("inline"),
    ):
        with pytest.raises(InvalidArgument, match="symlink"):
            publish()
    assert os.readlink(target) == to
    assert node.mounted() == [f"staging/{volume}"]


@pytest.mark.parametrize("where", ["staging", "target"])
def test_a_symlink_on_the_way_is_refused(node: NodeService, where: str) -> None:
    """Even one that leads to a good place."""
    volume = node.volume()
    (node.kubelet / "way").symlink_to("pods")
    (node.kubelet / "pods" / "s").mkdir()
    path = str(node.kubelet / "way" / "s")
    if where == "staging":
        with pytest.raises(InvalidArgument, match="symlink"):
            node.stage(volume, staging_target_path=path)
    else:
        node.stage(volume)
        with pytest.raises(InvalidArgument, match="symlink"):
            node.publish(volume, target_path=path)
    assert os.listdir(node.kubelet / "pods") == ["s"]


def test_a_target_that_became_a_symlink_is_not_followed_by_unpublish(node: NodeService, tmp_path: Path) -> None:
    """A pod's directory that was swapped: an error, and what the link names stays mounted and whole."""
    volume = node.volume()
    node.stage(volume)
    target = Path(node.publish(volume))
    moved = target.with_name("moved")
    (node.kubelet / "pods" / "other").mkdir()
    tree = mounts.tmpfs()
    place = os.open(node.kubelet / "pods" / "other", os.O_PATH)
    mounts.attach(tree, place)
    os.close(tree)
    os.close(place)
    syscalls.umount2(str(target))
    target.rename(moved)
    target.symlink_to("other")
    with pytest.raises(InvalidArgument, match="symlink"):
        node.unpublish(volume)
    assert "pods/other" in node.mounted()
    assert os.readlink(target) == "other"


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\nb", "a\\b", "a\\040b", "a#b", "ä", " ", "\\", "x" * 255])
@pytest.mark.parametrize("block", [False, True])
def test_names_with_what_the_mount_table_escapes(node: NodeService, name: str, block: bool) -> None:
    """Mounted once however often it is asked for, and gone afterwards (mountinfo writes a blank as \\040)."""
    volume, how = node.volume(block=block), capability(block=block)
    node.stage(volume, volume_capability=how, staging_target_path=node.staging(name))
    for _repeat in range(2):
        target = node.publish(volume, name, volume_capability=how, staging_target_path=node.staging(name))
    assert mounts.current_mount_points().count(target) == 1
    node.unpublish(volume, name)
    assert not os.path.lexists(target)
    node.call("NodeUnstageVolume", volume_id=volume, staging_target_path=node.staging(name))
    assert node.mounted() == node.held() == []


@pytest.mark.parametrize("path", ["{kubelet}//pods///pod", "{kubelet}/./pods/./pod", "{kubelet}/pods/pod/"])
def test_one_place_however_it_is_written(node: NodeService, path: str) -> None:
    volume = node.volume()
    node.stage(volume)
    node.publish(volume)
    node.publish(volume, target_path=path.replace("{kubelet}", str(node.kubelet)))
    assert len(node.mounted()) == 2
    node.call("NodeUnpublishVolume", volume_id=volume, target_path=path.replace("{kubelet}", str(node.kubelet)))
    assert len(node.mounted()) == 1


def test_what_stands_at_the_target_and_is_not_ours_stays(node: NodeService) -> None:
    """A file where a directory has to be, a device's target that holds data, a foreign mount, a directory with files."""
    volume, device, block = node.volume(), node.volume(block=True), capability(block=True)
    node.stage(volume)
    node.stage(device, volume_capability=block)
    Path(node.target("file")).write_text("mine")
    Path(node.target("directory")).mkdir()
    with pytest.raises(FailedPrecondition):
        node.publish(volume, "file")
    with pytest.raises(FailedPrecondition):
        node.publish(device, "directory", volume_capability=block)
    assert Path(node.target("file")).read_text() == "mine"
    foreign = Path(node.target("foreign"))
    foreign.mkdir()
    syscalls.mount("none", str(foreign), "tmpfs")
    with pytest.raises(AlreadyExists, match="something else is mounted"):
        node.publish(volume, "foreign")
    with pytest.raises(AlreadyExists, match="something else is mounted"):
        node.publish_inline("inline", "foreign")
    with pytest.raises(AlreadyExists, match="something else is mounted"):
        node.stage(node.volume(), staging_target_path=str(foreign))
    assert "pods/foreign" in node.mounted()
    assert {kind for kind, _path in node.held()} == {"staging"}
    assert node.backend.volumes() == {record.id for record in node.service.records.volumes.all()}


def test_a_directory_that_is_there_already_serves(node: NodeService) -> None:
    """Kubelets before 1.20 make it themselves; what is in it is back after unpublish, which then says that it is not ours."""
    volume = node.volume()
    node.stage(volume)
    Path(node.target()).mkdir()
    (Path(node.target()) / "before").write_text("x")
    node.publish(volume)
    assert os.listdir(node.target()) == []
    with pytest.raises(FailedPrecondition, match="not empty"):
        node.unpublish(volume)
    assert os.listdir(node.target()) == ["before"]
    (Path(node.target()) / "before").unlink()
    node.unpublish(volume)
    assert not os.path.lexists(node.target())


def test_unpublishing_what_is_not_published_touches_nothing(node: NodeService) -> None:
    volume = node.volume()
    Path(node.target()).mkdir()
    node.unpublish(volume)
    assert Path(node.target()).is_dir()


def test_a_directory_around_the_target_that_is_gone_is_no_obstacle(node: NodeService) -> None:
    """The kubelet has cleaned up before us."""
    volume = node.volume()
    node.stage(volume)
    (node.kubelet / "pods" / "p").mkdir()
    target = node.publish(volume, "p/mount")
    syscalls.umount2(target)
    os.rmdir(target)
    (node.kubelet / "pods" / "p").rmdir()
    node.unpublish(volume, "p/mount")
    node.unstage(volume)
    assert node.held() == []


def test_a_kubelet_directory_that_is_itself_a_link_serves(tmp_path: Path) -> None:
    """/var/lib/kubelet is a link on some machines: that one is the administrator's."""
    (tmp_path / "real").mkdir()
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "kubelet").symlink_to(tmp_path / "real")
    with own_mounts():
        node = NodeService(tmp_path / "node")
        volume = node.volume()
        node.stage(volume)
        node.publish(volume)
        assert str(tmp_path / "real" / "pods" / "pod") in mounts.current_mount_points()
        node.unpublish(volume)
        node.unstage(volume)
        assert node.held() == []
        node.close()
