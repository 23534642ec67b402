"""One plugin called: what a hostile or broken one can do to the caller."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cni.invoke import PluginFailed, Plugins
from runtime_core.cni.request import Request
from runtime_core.errors import DeadlineExceeded, InvalidArgument, NotFound, PermissionDenied, TrivetError, Unavailable
from tests.unit.cni.conftest import Node


def _request(**more: Any) -> Request:
    return Request(config={"cniVersion": "1.1.0", "name": "net", "type": "evil", **more}, container_id="c1", interface="eth0")


@pytest.mark.parametrize(
    ("script", "verb", "kind", "message"),
    [
        ("echo hello; exit 0", "ADD", PluginFailed, "printed no JSON"),
        ("echo '[1]'; exit 0", "ADD", Unavailable, "printed no object"),
        ("echo '[1]'; exit 1", "ADD", Unavailable, "printed no object"),
        ("exit 0", "ADD", Unavailable, "printed no result"),
        ("head -c 200000 /dev/zero | tr '\\0' '['; exit 0", "ADD", PluginFailed, "printed no JSON"),
        ("yes", "ADD", InvalidArgument, "more than 4194304 bytes on stdout"),
        ("yes >&2", "DEL", InvalidArgument, "more than 4194304 bytes on stderr"),
        ("echo broken >&2; exit 3", "DEL", PluginFailed, "evil DEL: broken"),
        ("exit 3", "DEL", PluginFailed, "exit status 3"),
        ("kill -9 $$", "DEL", PluginFailed, "killed by signal 9"),
        ('echo \'{"code": "x", "msg": 5, "details": []}\'; exit 1', "DEL", PluginFailed, "exit status 1 .code 999."),
        ('echo \'{"code": 11, "msg": "later", "details": "why"}\'; exit 1', "DEL", PluginFailed, r"later \(why\) \(code 11\)"),
    ],
)
def test_a_bad_answer_is_an_error_of_ours(node: Node, script: str, verb: str, kind: type[TrivetError], message: str) -> None:
    """Whatever it prints: the error names the plugin and the verb, and nothing else is raised."""
    node.plugin("evil", script)
    with pytest.raises(kind, match=message) as raised:
        node.plugins().call("evil", verb, _request())
    assert "evil" in str(raised.value)


def test_a_message_is_cut(node: Node) -> None:
    """It goes into logs and into gRPC's headers, which hold little."""
    node.plugin("evil", 'printf \'{"code": 7, "msg": "\'; head -c 100000 /dev/zero | tr "\\0" x; printf \'"}\'; exit 1')
    with pytest.raises(PluginFailed) as raised:
        node.plugins().call("evil", "ADD", _request())
    assert len(str(raised.value)) < 2000


def test_a_plugin_that_hangs_is_killed_with_its_children(node: Node) -> None:
    """The time-out ends what it has started too, and the call."""
    node.plugin("evil", f"sleep 1000 & echo $! > {node.directory}/child; wait")
    with pytest.raises(DeadlineExceeded, match="evil ADD did not end within 0.5 s"):
        node.plugins(0.5).call("evil", "ADD", _request())
    child = Path("/proc", (node.directory / "child").read_text().strip(), "stat")
    assert _is_dead(child), "the plugin's child still runs"


def test_what_a_plugin_leaves_behind_is_not_waited_for(node: Node) -> None:
    """A background child that holds the pipes does not hold the pod."""
    node.plugin("evil", f"sleep 30 & echo $! > {node.directory}/child")
    begun = time.monotonic()
    assert node.plugins().call("evil", "ADD", _request())["ips"]
    assert time.monotonic() - begun < 10


def test_a_plugin_need_not_read_its_configuration(node: Node) -> None:
    """Also when that is larger than a pipe."""
    path = node.bin / "deaf"
    path.write_text("#!/bin/sh\necho '{\"ips\": []}'\n")
    path.chmod(0o755)
    assert node.plugins().call("deaf", "ADD", _request(padding="x" * 300_000)) == {"ips": []}


def test_a_plugin_sees_its_parameters_and_no_other_environment(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of the daemon's environment is not among them."""
    monkeypatch.setenv("SECRET", "1")
    node.plugin("evil", f"env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD= | cut -d= -f1 | sort > {node.directory}/env")
    node.plugins().call("evil", "ADD", _request())
    assert (node.directory / "env").read_text().split() == [
        "CNI_ARGS", "CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "PATH",
    ]  # fmt: skip


def test_to_whom_a_plugin_delegates_it_gives_its_whole_environment(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Specification, section 4."""
    monkeypatch.setenv("KUBECONFIG", "/etc/k8s.conf")
    node.plugin("evil", f"env > {node.directory}/env")
    node.plugins().delegate("evil", "ADD", _request())
    lines = (node.directory / "env").read_text().splitlines()
    assert {"KUBECONFIG=/etc/k8s.conf", "CNI_COMMAND=ADD", "CNI_CONTAINERID=c1"} <= set(lines)


@pytest.mark.parametrize("kind", ["bridge", "ptp"])
@pytest.mark.parametrize("verb", ["STATUS", "DEL"])
def test_a_plugin_is_not_its_own_ipam_plugin(node: Node, kind: str, verb: str) -> None:
    """It would call itself without end."""
    modules = {one: f"cni_plugins.main.{one}" for one in ("bridge", "ptp")}
    with pytest.raises(InvalidArgument, match=f"ipam.type: '{kind}' is no plugin that gives addresses"):
        node.plugins(modules=modules).call("ptp", verb, _request(ipam={"type": kind}))


def test_standard_error_is_passed_on(node: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """Also when the plugin succeeds."""
    node.plugin("evil", "echo careful >&2")
    node.plugins().call("evil", "ADD", _request())
    assert capfd.readouterr().err == "careful\n"


@pytest.mark.parametrize("code", [0, -3, 1 << 40])
def test_a_code_that_is_none_is_not_passed_on(node: Node, code: int) -> None:
    node.plugin("evil", f'echo \'{{"code": {code}, "msg": "odd"}}\'; exit 1')
    with pytest.raises(PluginFailed) as raised:
        node.plugins().call("evil", "DEL", _request())
    assert raised.value.code == 999


def test_what_is_no_program_is_an_error_of_ours(node: Node) -> None:
    """An executable bit does not make one; a plugin that is nowhere is named with where it was looked for."""
    (node.bin / "text").write_text("no program")
    (node.bin / "text").chmod(0o755)
    with pytest.raises(TrivetError, match="text ADD"):
        node.plugins().call("text", "ADD", _request())
    (node.bin / "plain").write_text("#!/bin/sh\n")
    with pytest.raises(NotFound, match=str(node.bin)):
        node.plugins().call("plain", "ADD", _request())


def test_of_two_plugins_of_one_name_the_first_directory_wins(node: Node, tmp_path: Path) -> None:
    """As PATH is searched."""
    node.plugin("twice", answer={"ips": [{"address": "10.0.0.9/24"}]})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "twice").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "other" / "twice").chmod(0o755)
    plugins = Plugins([str(node.bin), str(tmp_path / "other")], {})
    assert plugins.call("twice", "ADD", _request())["ips"][0]["address"] == "10.0.0.9/24"


@pytest.mark.parametrize("failure", [ValueError("odd"), PermissionError(13, "no"), KeyError("ips")])
def test_a_module_that_crashes_fails_as_an_executable_does(
    node: Node, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """An in-process plugin, a stranger's too, cannot take the daemon's call with it."""
    module = types.ModuleType("strange_plugin")

    def add(_request: Request) -> None:
        raise failure

    module.add = add  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "strange_plugin", module)
    kind = PermissionDenied if isinstance(failure, OSError) else PluginFailed
    with pytest.raises(kind, match="strange ADD"):
        node.plugins(modules={"strange": "strange_plugin"}).call("strange", "ADD", _request())


def _is_dead(stat: Path) -> bool:
    """Killed is asked for and happens a moment later."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
    return False
