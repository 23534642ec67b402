"""tuning: settings from all their places, a wrong one refused by its field, no file outside of net, files by owner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.chained import link_settings, saved_settings
from cni_plugins.chained.tuning_options import Options, check_allowed, sysctl_path
from cni_plugins.meta import tuning
from runtime_core.cni.request import Request
from runtime_core.errors import FailedPrecondition, InvalidArgument

_A, _B, _C, _D = (f"02:00:00:00:00:0{n}" for n in "abcd")


def _request(env: dict[str, str] | None = None, **config: Any) -> Request:
    config = {"name": "net", "type": "tuning", **config}
    return Request(config=config, container_id="c1", interface="eth0.5", args=env)


@pytest.mark.parametrize(
    ("config", "env", "wanted"),
    [
        ({}, {}, {}),
        ({"mac": _A.upper()}, {}, {"mac": _A}),
        ({"mac": _A}, {"MAC": _B}, {"mac": _B}),
        ({"mac": _A, "runtimeConfig": {"mac": _C}}, {"MAC": _B}, {"mac": _C}),
        ({"mac": _A, "runtimeConfig": {"mac": _C}, "args": {"cni": {"mac": _D}}}, {"MAC": _B}, {"mac": _D}),
        ({"mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 5}, {}, {"mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 5}),
        ({"mtu": 0, "promisc": False, "allmulti": False, "txQLen": 0}, {}, {"allmulti": False, "txQLen": 0}),
        (
            {"mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 5, "args": {"cni": {"mtu": 1300, "promisc": False, "allmulti": False, "txQLen": 6}}},
            {}, {"mtu": 1300, "allmulti": False, "txQLen": 6},
        ),
        ({"args": {"cni": {"mtu": 1300}}}, {}, {"mtu": 1300}),
    ],
)  # fmt: skip
def test_who_says_what(config: dict[str, Any], env: dict[str, str], wanted: dict[str, Any]) -> None:
    """args.cni before the capability, that before the environment, that before the configuration; the rest is left alone."""
    assert link_settings.requested_settings(Options(_request(env, **config))) == wanted


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"sysctl": []}, "sysctl: [] is not an object"),
        ({"sysctl": {"net.core.somaxconn": 5}}, "sysctl.net.core.somaxconn: 5"),
        ({"sysctl": {"net.core.somaxconn": "1\0"}}, "sysctl.net.core.somaxconn"),
        ({"sysctl": {"kernel.shmmax": "1"}}, "sysctl: 'kernel.shmmax' is not a setting of the network"),
        ({"sysctl": {"netx.a": "1"}}, "sysctl: 'netx.a'"),
        ({"sysctl": {"net": "1"}}, "sysctl: 'net'"),
        ({"sysctl": {"net/../kernel/shmmax": "1"}}, "sysctl: 'net/../kernel/shmmax'"),
        ({"sysctl": {"/net/core/somaxconn": "1"}}, "sysctl: '/net/core/somaxconn'"),
        ({"sysctl": {"net.core.somaxconn.": "1"}}, "sysctl: 'net.core.somaxconn.'"),
        ({"sysctl": {"net.core.x": "1", "net/core/x": "2"}}, "sysctl: net/core/x and net.core.x are the same"),
        ({"args": {"cni": {"sysctl": {"kernel.x": "1"}}}}, "sysctl: 'kernel.x'"),
        ({"args": {"cni": {"sysctl": 5}}}, "args.cni.sysctl: 5"),
        ({"args": {"cni": 5}}, "args.cni: 5"),
        ({"mac": "02:00"}, "mac: '02:00'"),
        ({"mac": "01:00:00:00:00:01"}, "mac: '01:00:00:00:00:01' is a group's address"),
        ({"runtimeConfig": {"mac": 5}}, "runtimeConfig.mac: 5"),
        ({"args": {"cni": {"mac": "x"}}}, "args.cni.mac: 'x'"),
        ({"mtu": -1}, "mtu: -1"),
        ({"mtu": "1500"}, "mtu: '1500'"),
        ({"args": {"cni": {"mtu": 1 << 20}}}, "args.cni.mtu: 1048576"),
        ({"promisc": "yes"}, "promisc: 'yes'"),
        ({"allmulti": 1}, "allmulti: 1"),
        ({"args": {"cni": {"allmulti": "x"}}}, "args.cni.allmulti: 'x'"),
        ({"txQLen": -1}, "txQLen: -1"),
        ({"dataDir": 5}, "dataDir: 5"),
        ({"dataDir": "run/x"}, "dataDir: 'run/x' is not an absolute path"),
    ],
)
def test_a_wrong_value_is_named(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        Options(_request(**config))
    assert str(raised.value).startswith(field)


def test_the_mac_of_the_environment_is_checked() -> None:
    with pytest.raises(InvalidArgument, match="^CNI_ARGS: MAC: 'x'"):
        Options(_request({"MAC": "x"}))


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.core.somaxconn", "net/core/somaxconn"),
        ("net/core/somaxconn", "net/core/somaxconn"),
        ("net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/eth0.5/arp_filter"),
        ("net.ipv4.IFNAME.IFNAME", "net/ipv4/eth0.5/IFNAME"),
    ],
)
def test_where_a_sysctl_is(key: str, path: str) -> None:
    """The interface's name keeps its own dots."""
    assert sysctl_path(key, "eth0.5") == path


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        (None, ""),
        ("^net.core.somaxconn$\n  ^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$  \n", ""),
        ("arp_filter\nsomaxconn", ""),
        ("", "net.core.somaxconn is not allowed by"),
        ("^net\\.core\\.", "net.ipv4.conf.IFNAME.arp_filter is not allowed by"),
        ("^net.core.somaxconn$\n(", "'(' is not a regular expression"),
    ],
)
def test_the_allow_list(tmp_path: Path, lines: str | None, refused: str) -> None:
    """Regular expressions, one of which must be found in the key as it is configured; without a file all are allowed."""
    path = tmp_path / "allowlist.conf"
    if lines is not None:
        path.write_text(lines)
    sysctls = {"net.core.somaxconn": "1", "net.ipv4.conf.IFNAME.arp_filter": "1"}
    if not refused:
        check_allowed(sysctls, str(path))
        return
    with pytest.raises(FailedPrecondition) as raised:
        check_allowed(sysctls, str(path))
    assert refused in str(raised.value)


def test_without_an_earlier_plugin_it_says_so() -> None:
    for call in (tuning.add, tuning.check):
        with pytest.raises(InvalidArgument, match="^prevResult is missing: tuning"):
            call(_request())


def test_gc_forgets_what_is_known_to_be_of_this_network(tmp_path: Path) -> None:
    """And keeps another network's files, the reference set's, and whatever else lies there."""
    kept = ["c1_eth0.json", "c9_eth0.json", "theirs_eth0.json", "torn_eth0.json", "other.txt"]
    for network, container_id, interface in (
        ("net", "c1", "eth0"),
        ("net", "c1", "eth1"),
        ("net", "c2", "eth0"),
        ("foreign", "c9", "eth0"),
    ):
        owner = Request(config={"name": network}, container_id=container_id, interface=interface)
        saved_settings.save(str(tmp_path), owner, {"mtu": 1500})
    (tmp_path / "theirs_eth0.json").write_text('{"mtu": 1500}')
    (tmp_path / "torn_eth0.json").write_text('{"mtu": 15')
    (tmp_path / "other.txt").write_text('{"owner": ["net", "c3", "eth0"]}')
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    tuning.gc(_request(dataDir=str(tmp_path)))
    assert len(list(tmp_path.iterdir())) == 7
    tuning.gc(_request(dataDir=str(tmp_path), **{"cni.dev/valid-attachments": valid}))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    tuning.gc(_request(dataDir=str(tmp_path / "absent"), **{"cni.dev/valid-attachments": valid}))
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"mtu": "x", "promisc": 1, "mac": 5, "txQLen": true, "evil": 1}', None])
def test_a_torn_file_gives_nothing_back(tmp_path: Path, content: str | None) -> None:
    """DEL forgets it, and makes no directory."""
    directory = tmp_path / "data"
    request = Request(config={"name": "net", "dataDir": str(directory)}, container_id="c1", interface="eth0", netns="/nowhere")
    if content is not None:
        directory.mkdir()
        (directory / "c1_eth0.json").write_text(content)
    assert saved_settings.load(str(directory), request) == {}
    tuning.delete(request)
    assert not (directory / "c1_eth0.json").exists()
    assert directory.exists() == (content is not None)
    assert not Path("/nowhere").exists()


def test_the_files_are_the_reference_sets(tmp_path: Path) -> None:
    """Its DEL gives back what ours saved, ours what its saved."""
    request = Request(config={"name": "net"}, container_id="c1", interface="eth0")
    saved_settings.save(str(tmp_path), request, {"mac": _A, "mtu": 1500, "promisc": False, "allmulti": True, "txQLen": 0})
    document = json.loads((tmp_path / "c1_eth0.json").read_text())
    assert document.pop("owner") == ["net", "c1", "eth0"]
    assert document == {"mac": _A, "mtu": 1500, "promisc": False, "allmulti": True, "txQLen": 0}
    assert saved_settings.load(str(tmp_path), request) == document
    assert ((tmp_path / "c1_eth0.json").stat().st_mode & 0o777) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["c1_eth0.json"]


@pytest.mark.parametrize("interface", ["../../evil", "a/b", "", ".", ".."])
def test_del_with_a_name_that_is_a_path_touches_nothing(tmp_path: Path, interface: str) -> None:
    (tmp_path / "c1_..").mkdir()
    victim = tmp_path / "evil.json"
    victim.write_text("{}")
    tuning.delete(Request(config={"name": "net", "dataDir": str(tmp_path / "c1_..")}, container_id="c1", interface=interface))
    assert victim.read_text() == "{}"
