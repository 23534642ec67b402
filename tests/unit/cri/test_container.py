"""A container's OCI spec, by table."""

from __future__ import annotations

from typing import Any

import pytest

from cri.api.v1 import api_pb2 as api
from cri.translate import signals
from cri.translate.container import Facts, Inputs, container_spec
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import capabilities
from runtime_core.sandbox.records import SandboxRecord, SandboxSpec

_ALL = ["CAP_" + name for name in capabilities.NAMES]
_PASSWD = b"root:x:0:0::/root:/bin/sh\nweb:x:33:44::/www:/bin/false\n"
_GROUP = b"root:x:0:\nweb:x:44:\nextra:x:55:web,other\n"


def _spec(
    image: dict[str, Any] | None = None,
    security: dict[str, Any] | None = None,
    uid_mappings: list[tuple[int, int, int]] | None = None,
    **config: Any,
) -> dict[str, Any]:
    linux = api.LinuxContainerConfig(
        resources=config.pop("resources", None), security_context=api.LinuxContainerSecurityContext(**(security or {}))
    )
    sandbox = SandboxRecord(
        spec=SandboxSpec(
            id="s", name="s", metadata={}, cgroup_parent="/kubepods/podx", hostname="box", uid_mappings=uid_mappings or []
        ),
        is_ready=True,
        created_at=1,
        directory="/state/pods/s",
        netns_path="/state/netns/s",
        monitor_pid=7,
    )
    inputs = Inputs(
        id="c",
        config=api.ContainerConfig(linux=linux, **{"command": ["run"], **config}),
        sandbox=sandbox,
        image=image or {},
        facts=Facts(capabilities=_ALL),
        passwd=_PASSWD,
        group=_GROUP,
    )
    return container_spec(inputs)


@pytest.mark.parametrize(
    ("command", "args", "whole"),
    [
        ([], [], ["entry", "point", "cmd"]),
        ([], ["a"], ["entry", "point", "a"]),
        (["c"], [], ["c"]),
        (["c"], ["a"], ["c", "a"]),
    ],
)
def test_command_and_args_replace_entrypoint_and_cmd(command: list[str], args: list[str], whole: list[str]) -> None:
    """As Kubernetes documents it: a command drops the image's Cmd too."""
    image = {"Entrypoint": ["entry", "point"], "Cmd": ["cmd"]}
    assert _spec(image, command=command, args=args)["process"]["args"] == whole


def test_the_environment_is_merged_and_values_are_bytes() -> None:
    """The caller's win over the image's; PATH, HOSTNAME and HOME are there; no UTF-8 is needed."""
    envs = [api.KeyValue(key="A", value=b"caller"), api.KeyValue(key="B", value=b"\xff")]
    found = dict(e.partition("=")[::2] for e in _spec({"Env": ["A=image", "C=3"]}, envs=envs)["process"]["env"])
    assert (found["A"], found["C"], found["HOSTNAME"], found["HOME"]) == ("caller", "3", "box", "/root")
    assert found["B"].encode(errors="surrogateescape") == b"\xff"
    assert "PATH" in found


@pytest.mark.parametrize("entry", ["=x", "=", ""])
def test_a_variable_of_the_image_has_a_name(entry: str) -> None:
    """execve(2) would take it, Python's would not, and nobody means it."""
    with pytest.raises(InvalidArgument, match="the image's Env"):
        _spec({"Env": ["A=b", entry]})


@pytest.mark.parametrize(
    ("image_user", "security", "uid", "gid", "groups"),
    [
        ("", {}, 0, 0, [0]),
        ("web", {}, 33, 44, [44, 55]),
        ("33", {}, 33, 44, [44, 55]),
        ("33:7", {}, 33, 7, [7, 55]),
        ("web:extra", {}, 33, 55, [55]),
        ("4000", {}, 4000, 0, [0]),
        ("web", {"run_as_user": api.Int64Value(value=9)}, 9, 0, [0]),
        ("", {"run_as_username": "web", "supplemental_groups": [3]}, 33, 44, [3, 44, 55]),
        ("web", {"supplemental_groups_policy": api.Strict, "supplemental_groups": [3]}, 33, 44, [3, 44]),
    ],
)
def test_users_and_groups(image_user: str, security: dict[str, Any], uid: int, gid: int, groups: list[int]) -> None:
    """The primary group is always one of the groups (CVE-2022-2995)."""
    user = _spec({"User": image_user}, security)["process"]["user"]
    assert (user["uid"], user["gid"], user["additionalGids"]) == (uid, gid, groups)


@pytest.mark.parametrize("user", ["4294967296", "-1", "nobody", "2147483648", "web:nogroup", "0x0"])
def test_a_user_that_cannot_be_is_refused(user: str) -> None:
    """No overflow to root, and a number is never a name (CVE-2024-40635)."""
    with pytest.raises(InvalidArgument, match="user"):
        _spec({"User": user})


def test_inheritable_capabilities_are_empty() -> None:
    """CVE-2022-24769; and who is not root holds none."""
    found = _spec(security={"run_as_user": api.Int64Value(value=5)})["process"]["capabilities"]
    assert found["inheritable"] == []
    assert found["effective"] == []
    assert "CAP_CHOWN" in found["bounding"]


@pytest.mark.parametrize(
    ("add", "drop", "present", "absent"),
    [
        (["NET_ADMIN"], [], "CAP_NET_ADMIN", "CAP_SYS_ADMIN"),
        (["CAP_SYS_TIME"], ["ALL"], "CAP_SYS_TIME", "CAP_CHOWN"),
        (["ALL"], ["SYS_ADMIN"], "CAP_BPF", "CAP_SYS_ADMIN"),
        ([], ["chown"], "CAP_KILL", "CAP_CHOWN"),
    ],
)
def test_capabilities_are_added_and_dropped(add: list[str], drop: list[str], present: str, absent: str) -> None:
    """With and without CAP_, ALL in both directions."""
    wanted = api.Capability(add_capabilities=add, drop_capabilities=drop)
    effective = _spec(security={"capabilities": wanted})["process"]["capabilities"]["effective"]
    assert present in effective
    assert absent not in effective


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"command": []}, "config.command"),
        ({"working_dir": "relative"}, "config.working_dir"),
        ({"resources": api.LinuxContainerResources(memory_limit_in_bytes=-5)}, "memory_limit_in_bytes"),
        ({"resources": api.LinuxContainerResources(cpu_shares=-1)}, "cpu_shares"),
        ({"resources": api.LinuxContainerResources(oom_score_adj=2000)}, "oom_score_adj"),
        ({"resources": api.LinuxContainerResources(unified={"memory.high": "1"})}, "unified"),
        ({"mounts": [api.Mount(container_path="x", host_path="/y")]}, r"mounts\[0\].container_path"),
        ({"mounts": [api.Mount(container_path="/x", host_path="/y/../z")]}, r"mounts\[0\].host_path"),
        ({"envs": [api.KeyValue(key="A=B", value=b"x")]}, r"envs\[0\].key"),
        ({"security": {"capabilities": api.Capability(add_capabilities=["NOPE"])}}, "add_capabilities"),
        ({"stdin_once": True}, "stdin_once"),
    ],
)
def test_bad_input_is_refused_by_its_field(config: dict[str, Any], field: str) -> None:
    """Nothing has been made when this is raised: translating is pure."""
    with pytest.raises(InvalidArgument, match=field):
        _spec(**config)


def test_the_callers_mounts_win_and_lie_deepest() -> None:
    """A mount on /etc/hosts replaces ours; parents come before children."""
    mounts = [
        api.Mount(container_path="/data/deep", host_path="/b", readonly=True),
        api.Mount(container_path="/data", host_path="/a", propagation=api.PROPAGATION_BIDIRECTIONAL),
        api.Mount(container_path="/etc/hosts", host_path="/kubelet/hosts"),
    ]
    spec = _spec(mounts=mounts)
    found = [mount["destination"] for mount in spec["mounts"]]
    assert found.index("/data") < found.index("/data/deep")
    assert [m["source"] for m in spec["mounts"] if m["destination"] == "/etc/hosts"] == ["/kubelet/hosts"]
    assert spec["linux"]["rootfsPropagation"] == "rshared"


def test_privileged_hides_nothing_and_may_use_every_device() -> None:
    """What the machine can give, all of it."""
    spec = _spec(security={"privileged": True})
    assert spec["linux"]["maskedPaths"] == []
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert spec["process"]["capabilities"]["effective"] == _ALL
    assert spec["linux"]["seccomp"] is None


@pytest.mark.parametrize(
    ("mappings", "asked", "masked"),
    [
        ([], [], True),
        ([], ["/proc/keys"], False),
        ([(0, 1 << 20, 65536)], [], False),
        ([(0, 1 << 20, 65536)], ["/proc/kcore"], True),
    ],
)
def test_nothing_is_hidden_where_a_user_namespace_and_empty_lists_say_so(
    mappings: list[tuple[int, int, int]], asked: list[str], masked: bool
) -> None:
    """procMount: Unmasked, which a kubelet says by empty lists; elsewhere they are the defaults."""
    linux = _spec(security={"masked_paths": asked, "readonly_paths": asked}, uid_mappings=mappings)["linux"]
    assert ("/proc/kcore" in linux["maskedPaths"]) is masked
    assert bool(linux["readonlyPaths"]) is (bool(asked) or not mappings)


def test_devices_are_denied_by_default() -> None:
    """GO-2022-0396: the list allows, it does not deny."""
    assert _spec()["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}


@pytest.mark.parametrize(
    ("asked", "image", "number", "told"),
    [
        (api.SIGNAL_SIGUSR1, "SIGINT", 10, api.SIGNAL_SIGUSR1),
        (api.SIGNAL_RUNTIME_DEFAULT, "INT", 2, api.SIGNAL_SIGINT),
        (api.SIGNAL_RUNTIME_DEFAULT, "", 15, api.SIGNAL_SIGTERM),
        (api.SIGNAL_RUNTIME_DEFAULT, "SIGRTMIN+3", 37, api.SIGNAL_SIGRTMINPLUS3),
        (api.SIGNAL_RUNTIME_DEFAULT, "9", 9, api.SIGNAL_SIGKILL),
    ],
)
def test_the_stop_signal_is_told_as_it_is(asked: int, image: str, number: int, told: int) -> None:
    """The caller's before the image's, and SIGTERM where neither says."""
    assert signals.stop_signal(asked, image) == number
    assert signals.cri_signal(number) == told


@pytest.mark.parametrize(
    ("asked", "image"),
    [
        (999, ""),
        (-1, ""),
        *((0, name) for name in ("NOPE", "0", "65", "99999", "9" * 5000, "SIG_IGN", "SIGRTMIN+31", "\u0661\u0665", "²")),
    ],
)
def test_an_unknown_stop_signal_is_refused(asked: int, image: str) -> None:
    """By who said it; digits are those of ASCII."""
    with pytest.raises(InvalidArgument, match="stop_signal" if asked else "StopSignal"):
        signals.stop_signal(asked, image)
