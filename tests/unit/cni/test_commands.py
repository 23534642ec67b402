"""trivet-cni's command line: a runtime's calls by hand, configurations explained, leases listed."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.__main__ import COMMANDS, main
from cni_plugins.ipam.host_local.address_key import address_to_key
from cni_plugins.ipam.host_local.store import LeaseStore
from tests.unit.cni.conftest import RESULT, Node


class Shell:
    """The commands on a node of fake plugins, with the network `net` of the plugins one and two."""

    def __init__(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = node
        self.netns = node.directory / "netns"
        self.netns.touch()
        for name in ("one", "two"):
            node.plugin(name, answer={"cniVersion": "1.1.0", **RESULT})
        self.configure()
        monkeypatch.setenv("NETCONFPATH", str(node.conf))
        monkeypatch.setenv("CNI_PATH", str(node.bin))

    def configure(self, **more: Any) -> None:
        (self.node.conf / "10-net.conflist").write_text(json.dumps(self.node.document("one", "two", **more)))

    def __call__(self, command: str, *words: str) -> int:
        directory = self.node.directory
        caches = ["--cache-dir", str(directory / "calls"), "--libcni-cache", str(directory / "results")]
        return main([command, "net", *words, *caches])


@pytest.fixture
def shell(node: Node, monkeypatch: pytest.MonkeyPatch) -> Shell:
    return Shell(node, monkeypatch)


def test_a_namespace_is_attached_checked_and_detached(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the list and back; the result is printed; a second ADD harms nothing; a second DEL succeeds."""
    assert shell("add", str(shell.netns)) == 0
    assert json.loads(capsys.readouterr().out)["ips"] == RESULT["ips"]
    assert shell("check", str(shell.netns)) == 0
    assert shell("add", str(shell.netns)) == 1
    assert "attached to net already" in capsys.readouterr().err
    assert shell("del", str(shell.netns)) == 0
    assert shell("del", str(shell.netns)) == 0
    assert shell.node.diary() == [
        "ADD one", "ADD two", "CHECK one", "CHECK two", "DEL two", "DEL one", "DEL two", "DEL one",
    ]  # fmt: skip
    assert shell("check", str(shell.netns)) == 1
    assert "is not attached to net" in capsys.readouterr().err


def test_its_parameters_come_from_the_environment_as_cnitools(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """CNI_IFNAME, CNI_ARGS and CAP_ARGS; the container's name is made of the namespace's path in the same way."""
    monkeypatch.setenv("CNI_IFNAME", "eth7")
    monkeypatch.setenv("CNI_ARGS", "A=1;B=2")
    monkeypatch.setenv("CAP_ARGS", '{"ips": ["10.0.0.9/24"], "mac": "x"}')
    shell.configure(plugins=[{"type": "one", "capabilities": {"ips": True}}])
    shell.node.plugin("one", f'env > {shell.node.directory}/env; echo "$CNI_CONTAINERID" > {shell.node.directory}/id')
    assert shell("add", "/run/netns/testing") == 0
    variables = dict(line.split("=", 1) for line in (shell.node.directory / "env").read_text().splitlines())
    assert (variables["CNI_IFNAME"], variables["CNI_ARGS"], variables["CNI_NETNS"]) == ("eth7", "A=1;B=2", "/run/netns/testing")
    assert (shell.node.directory / "id").read_text() == "cnitool-43057b9dcc39fe733071\n"
    assert shell.node.stdin("one", "ADD")["runtimeConfig"] == {"ips": ["10.0.0.9/24"]}


def test_what_cnitool_has_attached_is_detached_with_its_result(shell: Shell) -> None:
    """Found in libcni's cache, which knows it no more afterwards."""
    document = {
        "kind": "cniCacheV1", "containerId": "c9", "ifName": "eth0", "networkName": "net", "netns": str(shell.netns),
        "config": base64.b64encode(json.dumps(shell.node.document("two")).encode()).decode(),
        "result": {"cniVersion": "1.1.0", **RESULT},
    }  # fmt: skip
    path = shell.node.directory / "results" / "net-c9-eth0"
    path.parent.mkdir()
    path.write_text(json.dumps(document))
    assert shell("del", str(shell.netns), "--container-id", "c9") == 0
    assert shell.node.diary() == ["DEL two"]
    assert shell.node.stdin("two", "DEL")["prevResult"]["ips"] == RESULT["ips"]
    assert not path.exists()


def test_gc_releases_whose_namespace_is_gone(shell: Shell) -> None:
    """And names to the plugins who stands only when it is told: of other runtimes it knows nothing."""
    other = shell.node.directory / "other"
    other.touch()
    assert shell("add", str(shell.netns)) == shell("add", str(other)) == 0
    other.unlink()
    assert shell("gc") == 0
    assert shell.node.diary()[4:] == ["DEL two", "DEL one", "GC one", "GC two"]
    assert "cni.dev/valid-attachments" not in shell.node.stdin("one", "GC")
    assert shell("gc", "--valid", "c7/eth0") == 0
    assert shell.node.diary()[8:] == ["DEL two", "DEL one", "GC one", "GC two"]
    assert shell.node.stdin("one", "GC")["cni.dev/valid-attachments"] == [{"containerID": "c7", "ifname": "eth0"}]


def test_status_is_the_plugins_word(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """The first error, with its code."""
    assert shell("status") == 0
    shell.node.plugin("two", 'echo \'{"code": 50, "msg": "no daemon"}\'; exit 1')
    assert shell("status") == 1
    assert capsys.readouterr().err == "trivet-cni: CNI plugin two STATUS: no daemon (code 50)\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["add"], "NETNS: add needs the path"),
        (["add", "/x", "--container-id", "../x"], "--container-id"),
        (["add", "/x", "--capabilities", "[]"], "CAP_ARGS"),
        (["add", "/x", "--capabilities", "{"], "CAP_ARGS"),
        (["add", "/x", "--args", "novalue"], "CNI_ARGS"),
        (["add", "/x", "--packet-filter", "none"], "no packetfilter driver 'none'"),
        (["gc", "--valid", "c1"], "--valid"),
    ],
)
def test_wrong_words_are_named(shell: Shell, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    """Before any plugin is called."""
    assert shell(*words) == 1
    assert message in capsys.readouterr().err
    assert shell.node.diary() == []


def test_an_unknown_network_is_named(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    """With where it was looked for."""
    assert main(["status", "other"]) == 1
    assert f"no network 'other' in {shell.node.conf}" in capsys.readouterr().err


def _explain(tmp_path: Path, document: Any) -> int:
    path = tmp_path / "x.conflist"
    path.write_text(json.dumps(document))
    return main(["explain", str(path)])


_IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.1.0.0/16", "rangeStart": "10.1.0.9"}]],
    "routes": [{"dst": "0.0.0.0/0"}],
}
_PLUGINS = [
    {"type": "bridge", "bridge": "b0", "isDefaultGateway": True, "ipMasq": True, "mtu": 1400, "ipam": _IPAM},
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
]


def test_a_good_configuration_is_said_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What would be made, where addresses come from, what the runtime is asked for."""
    _explain(tmp_path, {"cniVersion": "1.1.0", "name": "net", "disableGC": True, "plugins": _PLUGINS})
    said = capsys.readouterr().out
    for words in (
        "network net, CNI 1.1.0, 2 plugins", "GC is never called", "bridge b0 of the host", "the MTU is 1400",
        "the host's address", "10.1.0.0/16 from 10.1.0.9", "/var/lib/cni/networks", "a route to 0.0.0.0/0",
        "2. portmap: ports of the node", "gives it portMappings",
    ):  # fmt: skip
        assert words in said


def _bridge(**more: Any) -> dict[str, Any]:
    return {"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "bridge", **more}]}


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({**_bridge(), "disableCHECK": True}, "disableCHECK: unknown"),
        (_bridge(mtuu=5), "plugins[0].mtuu: unknown"),
        (_bridge(mtu="1400"), "plugins[0].mtu: '1400' is not a number"),
        (_bridge(mtu=True), "plugins[0].mtu: True is not a number"),
        (_bridge(ipMasq="yes"), "plugins[0].ipMasq: 'yes' is not true or false"),
        (_bridge(vlanTrunk=[{"id": 5}, {"max": 7}]), "plugins[0].vlanTrunk[1].max: unknown"),
        (_bridge(vlanTrunk={"id": 5}), "plugins[0].vlanTrunk: {'id': 5} is not a list"),
        (
            _bridge(runtimeConfig={"portMappings": [{"hostPort": "80"}]}),
            "plugins[0].runtimeConfig.portMappings[0].hostPort: '80'",
        ),
        (_bridge(ipam={"type": "host-local", "ranges": [[{"subnett": "x"}]]}), "plugins[0].ipam.ranges[0][0].subnett: unknown"),
        (_bridge(ipam={"type": "strange"}), "plugins[0].ipam: not checked"),
        ({**_bridge(), "plugins": [{"type": "strange", "x": 1}]}, "plugins[0]: not checked"),
        ({**_bridge(), "plugins": [{"type": "strange", "x": 1}]}, "'strange' is none of Trivet's"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: Any, complaint: str
) -> None:
    """An unknown key, a wrong type, what nobody can check; and the exit status says so."""
    assert _explain(tmp_path, document) == 1
    assert complaint in capsys.readouterr().out


def test_all_problems_are_told_each_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown keys, types, values, and what only the plugin itself knows; those of one hide no others'."""
    ranges = [
        [{"subnet": "10.97.0.5/33"}],
        [{"subnet": "::ffff:10.66.1.0/120"}, {"subnet": "10.98.0.0/24", "rangeEnd": "10.99.0.9"}],
    ]
    ipam = {"type": "host-local", "ranges": ranges, "routes": [{"dst": "x"}, {"dst": "0.0.0.0/0", "gw": 5}], "dataDirr": "/x"}
    bridge = {
        "type": "bridge",
        "hairpin": True,
        "mtu": 99999,
        "vlan": 5000,
        "ipMasq": "yes",
        "vlanTrunk": [{"id": 9999}],
        "ipam": ipam,
    }
    tuning = {"type": "tuning", "sysctl": {"kernel.hostname": "x"}, "mac": "zz"}
    assert _explain(tmp_path, {"cniVersion": "1.1.0", "name": "net", "disablecheck": 1, "plugins": [bridge, tuning]}) == 1
    said = [
        line.removeprefix(f"{tmp_path}/x.conflist: ") for line in capsys.readouterr().out.splitlines() if "x.conflist: " in line
    ]
    assert [line.partition(": ")[0] for line in said] == [
        "disablecheck", "plugins[0].hairpin", "plugins[0].ipMasq", "plugins[0].ipam.ranges[0][0].subnet",
        "plugins[0].ipam.ranges[1][0].subnet", "plugins[0].ipam.routes[0].dst", "plugins[0].ipam.routes[1].gw",
        "plugins[0].ipam.dataDirr", "plugins[0].mtu", "plugins[0].vlan", "plugins[0].vlanTrunk[0].id",
        "plugins[1].sysctl", "plugins[1].mac",
    ]  # fmt: skip


def test_what_no_runtime_would_take_hides_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _explain(tmp_path, {**_bridge(hairpin=True), "name": "a/b"}) == 1
    said = capsys.readouterr()
    assert ("name 'a/b'" in said.err, "plugins[0].hairpin: unknown" in said.out) == (True, True)


@pytest.mark.parametrize("change", [{"cniVersion": "3.0.0"}, {"name": "a/b"}, {"plugins": []}, {"plugins": [{"type": "a/b"}]}])
def test_what_no_runtime_would_take_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    """As the runtime would refuse it."""
    assert _explain(tmp_path, {**_bridge(), **change}) == 1
    assert capsys.readouterr().err.startswith(f"trivet-cni: {tmp_path}/x.conflist: ")


def test_leases_of_one_network_that_cannot_be_read_hide_no_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for network in ("bad", "good"):
        with LeaseStore(str(tmp_path), network) as store:
            store.insert(address_to_key(ip_address("10.0.0.2")), "c1", "eth0")
    (tmp_path / "bad" / "leases.db").write_bytes(bytes(4096))
    assert main(["leases", "--data-dir", str(tmp_path), "--json"]) == 1
    said = capsys.readouterr()
    assert [json.loads(line)["network"] for line in said.out.splitlines()] == ["good"]
    assert "bad/leases.db is damaged" in said.err


def test_leases_of_a_node_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table; no line as JSON."""
    assert main(["leases", "--data-dir", str(tmp_path / "missing")]) == 0
    assert capsys.readouterr().out.split() == ["NETWORK", "ADDRESS", "CONTAINER", "INTERFACE"]
    assert main(["leases", "--data-dir", str(tmp_path / "missing"), "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_the_dhcp_daemon_has_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on as they are; other commands refuse what they do not know."""
    from cni_plugins.ipam.dhcp import plugin

    seen: list[list[str]] = []
    monkeypatch.setattr(plugin, "command_line", lambda words: seen.append(words) or 0)
    assert main(["dhcp-daemon", "-socketpath", "/x", "--broadcast"]) == 0
    assert seen == [["daemon", "-socketpath", "/x", "--broadcast"]]
    with pytest.raises(SystemExit):
        main(["leases", "--odd"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of its own."""
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    assert f"trivet-cni {command}" in capsys.readouterr().out
