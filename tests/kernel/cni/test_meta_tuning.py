"""tuning on the kernel: settings are set, checked and given back; sysctls are the container's and never the node's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.chained import link_settings
from cni_plugins.meta import tuning
from runtime_core.errors import FailedPrecondition, InvalidArgument, NotFound, TrivetError
from runtime_core.testing.tools import require_program
from tests.kernel.cni.meta_pod import POD, Pod, connected_pod, seconds_to_send

_MAC = "02:00:00:00:00:07"
_ALL = {"mac": _MAC, "mtu": 1400, "promisc": True, "allmulti": True, "txQLen": 77}
_SYSCTLS = {
    "net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "333", "net/ipv4/ip_local_port_range": "20000 30000",
    "net.ipv4.ip_local_reserved_ports": "8080,9148",
}  # fmt: skip


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with connected_pod(tmp_path) as pod:
        yield pod


def _settings(pod: Pod) -> dict[str, Any]:
    with pod.inside() as links:
        link = links.find("eth0")
        assert link is not None
        return link_settings.read_settings(links, link)


def _sysctl(pod: Pod, path: str) -> str:
    with pod.inside():
        return Path("/proc/sys/net", path).read_text().strip()


def _data(pod: Pod) -> dict[str, Any]:
    return {"dataDir": str(pod.directory / "data")}


def _files(pod: Pod) -> list[str]:
    directory = pod.directory / "data"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.mark.parametrize("key", sorted(_ALL))
def test_one_setting(pod: Pod, key: str) -> None:
    """It alone changes, is saved as it was, checks out, and is given back by DEL; traffic passes all the while."""
    before = _settings(pod)
    config = {key: _ALL[key], **_data(pod)}
    result = tuning.add(pod.request(pod.previous(), **config))
    assert _settings(pod) == {**before, key: _ALL[key]}
    saved = json.loads((pod.directory / "data" / "c1_eth0.json").read_text())
    assert saved == {key: before[key], "owner": ["net", "c1", "eth0"]}
    tuning.check(pod.request(result, **config))
    seconds_to_send(pod, POD[0], 10_000)
    for _time in range(2):
        tuning.delete(pod.request(result, **config))
        assert (_settings(pod), _files(pod)) == (before, [])


def test_all_settings_and_the_result(pod: Pod) -> None:
    """The result says the container's new address and size, and nothing else of it changes."""
    before, previous = _settings(pod), pod.previous()
    config = {**_ALL, "sysctl": _SYSCTLS, **_data(pod)}
    result = tuning.add(pod.request(previous, **config))
    host, container = previous["interfaces"]
    assert result == {**previous, "interfaces": [host, {**container, "mac": _MAC, "mtu": 1400}]}
    tuning.check(pod.request(result, **config))
    tuning.delete(pod.request(result, **config))
    assert _settings(pod) == before


def test_allmulti_can_be_taken_away(pod: Pod) -> None:
    require_program("nsenter", "util-linux")
    subprocess.run(["nsenter", f"--net={pod.path}", "ip", "link", "set", "eth0", "allmulticast", "on"], check=True)
    result = tuning.add(pod.request(pod.previous(), allmulti=False, **_data(pod)))
    assert _settings(pod)["allmulti"] is False
    tuning.delete(pod.request(result, allmulti=False, **_data(pod)))
    assert _settings(pod)["allmulti"] is True


def test_sysctls_are_the_containers(pod: Pod) -> None:
    """The node's stay; lists may be written with blanks and read with tabs; without settings of the link nothing is saved."""
    node = {path: Path("/proc/sys/net", path).read_text() for path in ("core/somaxconn", "ipv4/ip_local_port_range")}
    config = {"sysctl": _SYSCTLS, **_data(pod)}
    result = tuning.add(pod.request(pod.previous(), **config))
    assert _sysctl(pod, "ipv4/conf/eth0/arp_filter") == "1"
    assert _sysctl(pod, "core/somaxconn") == "333"
    assert _sysctl(pod, "ipv4/ip_local_port_range") == "20000\t30000"
    assert node == {path: Path("/proc/sys/net", path).read_text() for path in node}
    assert not (pod.directory / "data").exists()
    tuning.check(pod.request(result, **config))


def test_an_empty_value_empties_a_list(pod: Pod) -> None:
    key = "net.ipv4.ip_local_reserved_ports"
    tuning.add(pod.request(pod.previous(), sysctl={key: "8080"}))
    result = tuning.add(pod.request(pod.previous(), sysctl={key: ""}))
    assert _sysctl(pod, "ipv4/ip_local_reserved_ports") == ""
    tuning.check(pod.request(result, sysctl={key: ""}))


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"sysctl": {"net.nosuch": "1"}}, NotFound, "sysctl.net.nosuch: setting it to '1'"),
        ({"sysctl": {"net.core.somaxconn": "x"}}, TrivetError, "sysctl.net.core.somaxconn: setting it to 'x'"),
        ({"sysctl": {"net.ipv4.conf": "1"}}, TrivetError, r"sysctl.net.ipv4.conf"),
        ({"mtu": 65536}, TrivetError, "mtu: setting it to 65536"),
        ({"mtu": 10}, TrivetError, "mtu: setting it to 10"),
        ({"mac": "00:00:00:00:00:00"}, TrivetError, "mac: setting it to 00:00:00:00:00:00"),
    ],
)
def test_a_refused_add_leaves_the_interface_as_it_was(
    pod: Pod, config: dict[str, Any], error: type[TrivetError], message: str
) -> None:
    """Also what had been set before the refusal; no file stays."""
    before = _settings(pod)
    with pytest.raises(error, match=message):
        tuning.add(pod.request(pod.previous(), **{**_ALL, **config}, **_data(pod)))
    assert (_settings(pod), _files(pod)) == (before, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ip link set eth0 address 02:00:00:00:00:99", "mac of eth0 is 02:00:00:00:00:99, not 02:00:00:00:00:07"),
        ("ip link set eth0 mtu 1300", "mtu of eth0 is 1300, not 1400"),
        ("ip link set eth0 promisc off", "promisc of eth0 is False, not True"),
        ("ip link set eth0 allmulticast off", "allmulti of eth0 is False, not True"),
        ("ip link set eth0 txqueuelen 5", "txQLen of eth0 is 5, not 77"),
        ("sysctl -qw net.core.somaxconn=5", "sysctl.net.core.somaxconn is '5', not '333'"),
        ("ip link del eth0", "the container has no interface eth0"),
    ],
)
def test_check_sees_what_changed(pod: Pod, change: str, message: str) -> None:
    """And DEL succeeds."""
    require_program("nsenter", "util-linux")
    require_program(change.split()[0], "iproute2, procps")
    config = {**_ALL, "sysctl": _SYSCTLS, **_data(pod)}
    result = tuning.add(pod.request(pod.previous(), **config))
    subprocess.run(["nsenter", f"--net={pod.path}", *change.split()], check=True)
    with pytest.raises(TrivetError, match=message):
        tuning.check(pod.request(result, **config))
    tuning.delete(pod.request(result, **config))
    assert _files(pod) == []


def test_check_minds_only_what_is_configured(pod: Pod) -> None:
    """An interface that somebody listens on is promiscuous without our asking."""
    require_program("nsenter", "util-linux")
    result = tuning.add(pod.request(pod.previous(), mtu=1400, **_data(pod)))
    subprocess.run(["nsenter", f"--net={pod.path}", "ip", "link", "set", "eth0", "promisc", "on"], check=True)
    tuning.check(pod.request(result, mtu=1400, **_data(pod)))


@pytest.mark.parametrize("netns", ["", "/nowhere", "plain"])
@pytest.mark.parametrize("config", [_ALL, {"mtu": "bad", "sysctl": 5}])
def test_del_without_a_namespace(pod: Pod, netns: str, config: dict[str, Any]) -> None:
    """What was saved is forgotten, whatever is missing or bad by now, and no file appears."""
    tuning.add(pod.request(pod.previous(), **_ALL, **_data(pod)))
    assert _files(pod) == ["c1_eth0.json"]
    pod.close()
    plain = pod.directory / "plain"
    plain.touch()
    request = pod.request(**config, **_data(pod))
    request.netns = str(plain) if netns == "plain" else netns
    for _time in range(2):
        tuning.delete(request)
        assert _files(pod) == []
    assert not Path("/nowhere").exists()


def test_the_allow_list_is_asked_before_anything_is_written(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_list = pod.directory / "allowlist.conf"
    allow_list.write_text("^net.ipv4.conf.IFNAME.[a-z_]*$\n")
    monkeypatch.setattr(tuning, "ALLOW_LIST", str(allow_list))
    before = _sysctl(pod, "ipv4/conf/eth0/arp_filter")
    config = {"mtu": 1400, "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.core.somaxconn": "5"}, **_data(pod)}
    for call in (tuning.add, tuning.status):
        with pytest.raises(FailedPrecondition, match=r"^sysctl: net\.core\.somaxconn is not allowed by"):
            call(pod.request(pod.previous(), **config))
    assert (_sysctl(pod, "ipv4/conf/eth0/arp_filter"), _settings(pod)["mtu"], _files(pod)) == (before, 1500, [])
    del config["sysctl"]["net.core.somaxconn"]
    tuning.check(pod.request(tuning.add(pod.request(pod.previous(), **config)), **config))


def test_status_says_what_the_kernel_lacks(pod: Pod) -> None:
    tuning.status(pod.request(sysctl=_SYSCTLS))
    tuning.status(pod.request(sysctl={"net.ipv4.conf.IFNAME.no_such": "1"}))
    with pytest.raises(NotFound, match=r"^sysctl\.net\.ipv4\.no_such: the kernel has no /proc/sys/net/ipv4/no_such"):
        tuning.status(pod.request(sysctl={"net.ipv4.no_such": "1"}))
    with pytest.raises(InvalidArgument, match="^mtu"):
        tuning.status(pod.request(mtu=-1))


def test_an_interface_name_that_is_a_path(pod: Pod) -> None:
    request = pod.request(pod.previous(), sysctl={"net.ipv4.conf.IFNAME.arp_filter": "1"})
    request.interface = "../all"
    with pytest.raises(InvalidArgument, match="^CNI_IFNAME"):
        tuning.add(request)
