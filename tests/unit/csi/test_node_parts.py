"""The node service in parts: paths, flags, groups, sizes, the mount table, and work that hangs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from csi_driver.node import ephemeral, group_ownership, lookup, mount_flags, mount_point, mount_table
from csi_driver.records.node_state import NodeState
from csi_driver.timed_call import TimedCalls
from runtime_core.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound
from runtime_core.interfaces.volume import Problem
from runtime_core.kernel import syscalls

_KUBELET = Path("/var/lib/kubelet")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/var/lib/kubelet/pods/x", "/var/lib/kubelet/pods/x"),
        ("//var/lib//kubelet/./pods/x/", "/var/lib/kubelet/pods/x"),
        ("/var/lib/kubelet/a b\n\\c", "/var/lib/kubelet/a b\n\\c"),
        ("/var/lib/kubelet/..x", "/var/lib/kubelet/..x"),
    ],
)
def test_paths_below_the_kubelets_directory(path: str, found: str) -> None:
    assert mount_point.check_path(_KUBELET, path, "target_path") == found


@pytest.mark.parametrize(
    "path",
    ["", "x", "var/lib/kubelet/x", "/", "/var/lib", "/var/lib/kubelet", "/var/lib/kubelet/", "/var/lib/kubelet/./",
     "/var/lib/kubelet2/x", "/var/lib/kubelet/..", "/var/lib/kubelet/a/../b", "/var/lib/kubelet/../kubelet/x",
     "/var/lib/kubelet/a\0", "/var/lib/kubelet/" + "x" * 256, "/var/lib/kubelet" + "/x" * 2100],
)  # fmt: skip
def test_paths_that_are_refused_name_their_field(path: str) -> None:
    with pytest.raises(InvalidArgument, match="^target_path: "):
        mount_point.check_path(_KUBELET, path, "target_path")


def test_flags_are_taken_apart_and_each_is_there_once() -> None:
    """But for the commas within an SELinux label."""
    label = 'context="system_u:object_r:container_file_t:s0:c1,c2"'
    assert mount_flags.parse_flags(["ro,noatime", "noatime", label], "f") == ("ro", "noatime", label)


@pytest.mark.parametrize("flag", ["", "a\0", "a\nb", "a,,b"])
def test_flags_that_are_none_are_refused(flag: str) -> None:
    with pytest.raises(InvalidArgument, match="^f: "):
        mount_flags.parse_flags([flag], "f")


@pytest.mark.parametrize(
    ("wanted", "staged", "found"),
    [
        ([], [], (0, 0)),
        (["rw", "defaults"], [], (0, 0)),
        (["ro", "nosuid"], [], (syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID, 0)),
        (["noatime"], [], (syscalls.MOUNT_ATTR_NOATIME, syscalls.MOUNT_ATTR__ATIME)),
        (["discard"], ["discard"], (0, 0)),
    ],
)
def test_attributes_of_a_target(wanted: list[str], staged: list[str], found: tuple[int, int]) -> None:
    assert mount_flags.mount_attributes(wanted, staged, "f") == found


def test_an_option_of_the_file_system_has_to_be_staged_with() -> None:
    with pytest.raises(FailedPrecondition, match="^f: .*'discard'"):
        mount_flags.mount_attributes(["discard"], [], "f")


@pytest.mark.parametrize(("text", "found"), [("", ""), ("0", "0"), ("007", "7"), ("4294967294", "4294967294")])
def test_groups(text: str, found: str) -> None:
    assert group_ownership.parse_group(text, "g") == found


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("64Mi", 64 << 20), ("1Gi", 1 << 30), ("5G", 5 * 10**9), ("3k", 3000), ("2Ki", 2048), ("", 1 << 30)],
)
def test_sizes_of_inline_volumes(text: str, size: int) -> None:
    assert ephemeral._size(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "1.5Gi", "1 Gi", "Gi", "1Zi", "1mi", "0x10", "٣", "1e3", "9" * 40])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgument, match="size"):
        ephemeral._size(text)


@pytest.mark.parametrize("name", ["a", "..", "../../etc", "csi-" + "0" * 64, "\udcff", ""])
def test_ids_of_inline_volumes_are_ours(name: str) -> None:
    """Whatever the kubelet's id is, ours is one that a path may be made of, and always the same."""
    assert lookup.ephemeral_id(name) == lookup.ephemeral_id(name)
    assert lookup.ephemeral_id(name).removeprefix("eph-").isalnum()
    assert len(lookup.ephemeral_id(name)) == 36


_TABLE = rb"""22 1 254:0 / / rw - ext4 /dev/vda rw
30 22 7:3 / /real/kubelet/plugins/a\040b rw,noatime shared:3 master:1 - ext4 /dev/loop3 rw
31 22 0:5 /loop9 /real/kubelet/pods/dev rw - devtmpfs udev rw
32 22 7:4 /sub /real/kubelet/pods/c ro - xfs /dev/loop4 rw
33 22 0:44 / /real/kubelet rw - tmpfs none rw
34 22 0:45 / /real/kubelet2/x rw - tmpfs none rw
"""


def test_the_mount_table_below_the_kubelets_directory() -> None:
    """As the kubelet calls it, which may be a link."""
    found = mount_table.parse_mountinfo(_TABLE, "/var/lib/kubelet", "/real/kubelet")
    assert found == {
        "/var/lib/kubelet/plugins/a b": mount_table.Mount("7:3", "/", "ext4", "/dev/loop3"),
        "/var/lib/kubelet/pods/dev": mount_table.Mount("0:5", "/loop9", "devtmpfs", "udev"),
        "/var/lib/kubelet/pods/c": mount_table.Mount("7:4", "/sub", "xfs", "/dev/loop4"),
    }


def test_work_that_hangs_takes_one_thread() -> None:
    """Who asks again waits for the same; another name is not held; the answer comes when there is one."""
    bounded, go, runs = TimedCalls(0.05), threading.Event(), []

    def work() -> str:
        runs.append(1)
        go.wait()
        return "done"

    for _ask in range(3):
        with pytest.raises(DeadlineExceeded, match="slow"):
            bounded.run("slow", work)
    assert bounded.run("quick", lambda: 1) == 1
    assert runs == [1]
    go.set()
    while bounded.hanging():
        pass
    assert bounded.run("slow", work) == "done"


def test_errors_of_work_are_raised_to_who_asked() -> None:
    def work() -> None:
        raise NotFound("nothing")

    with pytest.raises(NotFound, match="nothing"):
        TimedCalls(5).run("x", work)


def test_a_change_is_told_when_it_is_over() -> None:
    """And whether somebody wanted to look meanwhile; whoever looked before and after can tell that there was one."""
    state, told = NodeState(), []
    state.on_change(lambda volume_id, is_suspect: told.append((volume_id, is_suspect)))
    before = state.changes("v")
    with state.changing("v"):
        assert state.changes("w") == 0
        assert told == []
    assert told == [("v", False)]
    assert state.changes("v") not in (before, -1)
    with state.changing("v"):
        assert state.changes("v") == -1
    assert told[1:] == [("v", True)]


def test_problems_are_remembered_and_forgotten() -> None:
    state, problem = NodeState(), Problem("DeviceGone", "gone")
    assert state.update_problems("v", [problem])
    assert not state.update_problems("v", [problem])
    assert state.all_problems() == {"v": (problem,)}
    assert state.update_problems("v", [])
    assert state.all_problems() == {}
    state.update_problems("v", [problem])
    state.forget("v")
    assert state.problems("v") == ()
