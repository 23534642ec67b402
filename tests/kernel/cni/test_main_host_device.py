"""The plugin host-device: a device goes into the pod and comes back, however it is named; veths stand for devices here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.links import host_devices
from runtime_core.errors import AlreadyExists, InvalidArgument, NotFound
from runtime_core.network.link_messages import rename_message
from runtime_core.network.links import Link
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, add_pair, addresses_of, names, on, reaches, run, tcp


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with main_node.made(tmp_path) as node:
        add_pair("dev0", "dev1")
        yield node


def _find(name: str, place: Path | None = None) -> Link:
    with on(place) as links:
        found = links.find(name)
    assert found is not None
    return found


def _sys(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /sys in which dev0 is a device on the PCI bus, behind virtio, and on the auxiliary one."""
    root = directory / "sys"
    pci = root / "devices/pci0000:00/0000:00:03.0"
    (pci / "virtio2/net/dev0").mkdir(parents=True)
    (root / "bus/pci/drivers/virtio-pci").mkdir(parents=True)
    (root / "bus/pci/drivers/vfio-pci").mkdir(parents=True)
    (pci / "driver").symlink_to(root / "bus/pci/drivers/virtio-pci")
    userspace = root / "devices/pci0000:00/0000:00:04.0"
    userspace.mkdir()
    (userspace / "driver").symlink_to(root / "bus/pci/drivers/vfio-pci")
    auxiliary = root / "devices/pci0000:00/0000:00:05.0/mlx5_core.sf.4"
    (auxiliary / "net/dev0").mkdir(parents=True)
    for bus, devices in (("pci", [pci, userspace]), ("auxiliary", [auxiliary])):
        (root / f"bus/{bus}/devices").mkdir(parents=True)
        for one in devices:
            (root / f"bus/{bus}/devices/{one.name}").symlink_to(one)
    monkeypatch.setattr(host_devices, "_SYS", str(root))
    return root


def test_the_device_is_the_pods_and_comes_back(node: Node) -> None:
    """Under the pod's name, with addresses and traffic; then under its own, without alias."""
    other = node.pod("other")
    run("ip", "link", "set", "dev1", "netns", str(other))
    with on(other) as links:
        far = links.find("dev1")
        assert far is not None
        links.configure(far.index, ["10.77.0.200/24", "fd77::200/64"], [])
    mac = _find("dev0").mac
    result, config = node.attach(node.config("host-device", device="dev0"), pod := node.pod())
    assert (result["interfaces"][0]["mac"], "dev0" in names(), names(pod)) == (mac, False, {"eth0"})
    assert tcp(pod, other, "10.77.0.200") == "10.77.0.2"
    reaches(other, pod, addresses_of(result))
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    home = _find("dev0")
    assert (home.mac, home.alias, names(pod), node.reserved()) == (mac, "", set(), [])


def test_by_hardware_address(node: Node) -> None:
    """In either spelling."""
    mac = _find("dev0").mac
    for spelling in (mac.upper(), mac.replace(":", "-")):
        _result, config = node.attach(node.config("host-device", hwaddr=spelling), pod := node.pod(spelling))
        assert _find("eth0", pod).mac == mac
        node.call("DEL", config, pod)
        assert _find("dev0").mac == mac


@pytest.mark.parametrize(
    "more",
    [
        {"pciBusID": "0000:00:03.0"},
        {"kernelpath": "{sys}/devices/pci0000:00/0000:00:03.0/virtio2"},
        {"kernelpath": "{sys}/devices/pci0000:00/0000:00:03.0"},
        {"runtimeConfig": {"deviceID": "0000:00:03.0"}},
        {"runtimeConfig": {"deviceID": "mlx5_core.sf.4"}},
        {"pciBusID": "0000:00:04.0", "runtimeConfig": {"deviceID": "mlx5_core.sf.4"}},
        {"pciBusID": "0000:00:04.0", "runtimeConfig": {"deviceID": "0000:00:03.0"}},
    ],
)
def test_by_its_place_in_the_machine(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: dict[str, Any]) -> None:
    """PCI, also behind virtio, a path in sysfs, the auxiliary bus; what the runtime says goes before pciBusID."""
    root = _sys(tmp_path, monkeypatch)
    more = {key: value.format(sys=root) if isinstance(value, str) else value for key, value in more.items()}
    node.call("STATUS", node.config("host-device", **more))
    _result, config = node.attach(node.config("host-device", **more), pod := node.pod())
    assert names(pod) == {"eth0"}
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert "dev0" in names()


def test_the_kernels_own_devices_are_found_by_udevs_library() -> None:
    """Each device of this machine that has a network interface, by the directory that it has in /sys."""
    found = 0
    for path in Path("/sys/class/net").iterdir():
        device = path / "device"
        if device.exists():
            assert host_devices._network_names(str(device.resolve())) == [path.name] == host_devices._walk(str(device.resolve()))
            found += 1
    if not found:
        pytest.skip("this machine has no network device on a bus")


def test_a_device_of_a_program_has_no_link(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """DPDK: the result has the addresses, the pod no interface; CHECK and DEL go by."""
    _sys(tmp_path, monkeypatch)
    result, config = node.attach(node.config("host-device", pciBusID="0000:00:04.0"), pod := node.pod())
    assert result["interfaces"] == [{"name": "eth0", "sandbox": str(pod)}]
    assert (addresses_of(result), names(pod)) == (["10.77.0.2", "fd77::2"], set())
    node.call("CHECK", config, pod)
    node.call("DEL", config, pod)
    assert node.reserved() == []


def test_without_ipam(node: Node) -> None:
    """The link alone, up."""
    result, config = node.attach(node.config("host-device", device="dev0", ipam=None), pod := node.pod())
    assert "ips" not in result
    assert _find("eth0", pod).is_up
    node.call("CHECK", config, pod)


def test_a_refused_add_brings_it_back_up(node: Node) -> None:
    """As it was."""
    pod = node.pod()
    with pytest.raises(NotFound):
        node.call("ADD", node.config("host-device", device="dev0", ipam={"type": "absent"}), pod)
    home = _find("dev0")
    assert (home.is_up, home.alias, names(pod)) == (True, "", set())


def test_a_device_that_came_home_by_itself(node: Node) -> None:
    """The namespace is gone and the kernel has taken the device back under its name of there: DEL gives it its own."""
    result, config = node.attach(node.config("host-device", device="dev0"), pod := node.pod())
    add_pair("wild0", "wild1")
    with on(None) as links:  # a physical device would do so with the namespace
        wild = _find("wild0")
        links.set_down(wild.index)
        links.send(rename_message(wild.index, "eth0", "uplink0"))
    result["interfaces"][0]["mac"] = wild.mac
    node.call("DEL", {**config, "prevResult": result}, "/nowhere")
    assert {"uplink0", "wild1"} <= names()
    assert _find("uplink0").alias == ""
    assert names(pod) == {"eth0"}


def test_a_name_that_the_node_has_given_away(node: Node) -> None:
    """DEL says so and the device stays where it is; when the name is free again it goes home."""
    _result, config = node.attach(node.config("host-device", device="dev0"), pod := node.pod())
    add_pair("dev0", "dev3")
    with pytest.raises(AlreadyExists, match="device: the node has another dev0"):
        node.call("DEL", config, pod)
    assert (names(pod), node.reserved()) == ({"eth0"}, [])
    run("ip", "link", "del", "dev0")
    node.call("DEL", config, pod)
    assert "dev0" in names()


def test_a_link_that_is_no_device_of_the_node_stays(node: Node) -> None:
    """Without the alias that ADD writes, DEL does not touch it."""
    pod = node.pod()
    add_pair("eth0", "eth1", pod)
    node.call("DEL", node.config("host-device", device="dev0"), pod)
    assert names(pod) == {"eth0", "eth1"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({}, InvalidArgument, "device: one of device, hwaddr, kernelpath, pciBusID and runtimeConfig.deviceID is needed"),
        ({"device": "gone0"}, NotFound, "device: no network interface of this node is gone0"),
        ({"device": "a/b"}, InvalidArgument, "device"),
        ({"hwaddr": "x"}, InvalidArgument, "hwaddr"),
        ({"hwaddr": "02:00:00:00:00:77"}, NotFound, "hwaddr: .*02:00:00:00:00:77"),
        ({"kernelpath": "/etc"}, InvalidArgument, "kernelpath"),
        ({"kernelpath": "/sys/devices/../../etc"}, InvalidArgument, "kernelpath"),
        ({"kernelpath": "/sys/devices/none"}, NotFound, "kernelpath"),
        ({"pciBusID": "../../net"}, InvalidArgument, "pciBusID"),
        ({"pciBusID": "ffff:ff:ff.f"}, NotFound, "pciBusID"),
        ({"runtimeConfig": {"deviceID": "../x"}}, InvalidArgument, "runtimeConfig.deviceID"),
        ({"runtimeConfig": {"deviceID": "ffff:ff:ff.f"}}, NotFound, "runtimeConfig.deviceID"),
    ],
)
def test_what_is_wrong_is_named(node: Node, change: dict[str, Any], error: type[Exception], message: str) -> None:
    """By ADD, and by STATUS where the runtime cannot say it later; DEL does not care."""
    pod = node.pod()
    config = node.config("host-device", **change)
    for verb in ("ADD", *(["STATUS"] if change else [])):
        with pytest.raises(error, match=message):
            node.call(verb, config, pod)
    node.call("DEL", config, pod)
    assert (names(pod), node.reserved()) == (set(), [])
