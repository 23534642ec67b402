"""Lists executed forwards and backwards: order, results handed on, failures, what the cache is for."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime_core.cni import conf
from runtime_core.cni.caller import Caller
from runtime_core.cni.invoke import PluginFailed, Plugins
from runtime_core.errors import DeadlineExceeded, InvalidArgument, TrivetError
from tests.unit.cni.conftest import RESULT, Node


def _network(document: dict[str, Any]) -> conf.NetworkList:
    return conf.parse(document, "test")


def test_plugins_run_forwards_and_backwards(node: Node) -> None:
    """ADD hands each one's result to the next; DEL gives the last result to all."""
    node.plugin("one", answer={"ips": [{"address": "10.0.0.1/24"}]})
    node.plugin("two", answer={"ips": [{"address": "10.0.0.2/24"}]})
    document, caller = node.document("one", "two"), node.caller()
    result = caller.add(_network(document), node.attachment(document))
    (attachment,) = node.cache.of_container("c1")
    caller.check(attachment)
    caller.delete(attachment)
    assert node.diary() == ["ADD one", "ADD two", "CHECK one", "CHECK two", "DEL two", "DEL one"]
    assert result["ips"] == [{"address": "10.0.0.2/24"}]
    assert "prevResult" not in node.stdin("one", "ADD")
    assert node.stdin("two", "ADD")["prevResult"]["ips"][0]["address"] == "10.0.0.1/24"
    assert node.stdin("one", "DEL")["prevResult"]["ips"][0]["address"] == "10.0.0.2/24"
    assert node.stdin("one", "CHECK")["prevResult"]["ips"][0]["address"] == "10.0.0.2/24"
    assert node.cache.all() == []


def test_one_plugin_twice_in_a_list(node: Node) -> None:
    """Each entry is called with its own configuration."""
    node.plugin("same", f"cat {node.directory}/same.$CNI_COMMAND >> {node.directory}/all; echo >> {node.directory}/all")
    document = node.document("same", "same")
    document["plugins"][0]["number"], document["plugins"][1]["number"] = 1, 2
    node.caller().add(_network(document), node.attachment(document))
    texts = (node.directory / "all").read_text().splitlines()
    assert ['"number": 1' in text for text in texts] == [True, False]
    assert node.diary() == ["ADD same", "ADD same"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"cniVersion": "9.9.9", "ips": []}, "cniVersion: '9.9.9'"),
        ({"cniVersion": 7, "ips": []}, "cniVersion: 7"),
        ({"ips": {}, "x": 1}, None),
        ({"ips": "10.0.0.2"}, "ips is not a list"),
        ({"ips": [5]}, "ips is not a list"),
        ({"ips": [{"address": "10.0.0.2/24"}] * 2000}, "at most 1024"),
        ({"ips": [{}]}, r"ips\[0\].address: None"),
        ({"ips": [{"address": 5}]}, r"ips\[0\].address: 5"),
        ({"ips": [{"address": "10.0.0.2\nnameserver 6.6.6.6"}]}, r"ips\[0\].address"),
        ({"ips": [{"address": "10.0.0.2/24", "gateway": "x"}]}, r"ips\[0\].gateway: 'x'"),
        ({"routes": [{"dst": "everywhere"}]}, r"routes\[0\].dst"),
        ({"routes": [{"dst": "0.0.0.0/0", "gw": []}], "ips": []}, None),
        ({"dns": 5}, "dns is not an object"),
        ({"interfaces": 5}, "interfaces is not a list"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": 5}}, r"ips\[0\].address: 5"),
        ({"cniVersion": "0.2.0", "ip4": []}, None),
        ({"cniVersion": "0.2.0", "ip4": [1]}, "ip4 is not an object"),
    ],
)
def test_a_bad_result_is_refused_and_taken_back(node: Node, answer: Any, message: str | None) -> None:
    """The field is named, DEL is called, nothing is kept; `None`: an empty value means that there is nothing."""
    node.plugin("one", answer=answer)
    document = node.document("one")
    if message is None and answer.get("cniVersion") != "0.2.0":
        node.caller().add(_network(document), node.attachment(document))
        return
    with pytest.raises(InvalidArgument, match=message or "ip4"):
        node.caller().add(_network(document), node.attachment(document))
    assert node.diary() == ["ADD one", "DEL one"]
    assert node.cache.all() == []


def test_a_result_without_a_version_has_the_configurations(node: Node) -> None:
    """And one of another version is given on as the configuration's version wants it."""
    node.plugin("one", answer={"ip4": {"ip": "10.0.0.2/24"}})
    node.plugin("two", answer={"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.0.0.3/24"}]})
    node.plugin("three")
    document = node.document("one", "two", "three", version="0.2.0")
    node.plugin("three", answer={"ip4": {"ip": "10.0.0.4/24"}})
    result = node.caller().add(_network(document), node.attachment(document))
    assert node.stdin("two", "ADD")["prevResult"]["ip4"]["ip"] == "10.0.0.2/24"
    assert node.stdin("three", "ADD")["prevResult"] == {"cniVersion": "0.2.0", "dns": {}, "ip4": {"ip": "10.0.0.3/24"}}
    assert result["ips"] == [{"address": "10.0.0.4/24"}]


@pytest.mark.parametrize(("version", "is_given"), [("0.3.1", False), ("0.4.0", True), ("1.1.0", True)])
def test_del_has_the_result_since_0_4_0(node: Node, version: str, is_given: bool) -> None:
    """Older plugins do not know it."""
    node.plugin("one")
    document = node.document("one", version=version)
    node.caller().add(_network(document), node.attachment(document))
    node.caller().delete(node.cache.all()[0])
    assert ("prevResult" in node.stdin("one", "DEL")) == is_given


def test_a_failed_add_takes_all_back(node: Node) -> None:
    """Also of plugins whose ADD was never called; the error is that of ADD."""
    node.plugin("one")
    node.plugin("two", '[ $CNI_COMMAND != ADD ] || { echo \'{"code": 100, "msg": "full"}\'; exit 1; }')
    node.plugin("three")
    document = node.document("one", "two", "three")
    with pytest.raises(TrivetError, match="two ADD: full"):
        node.caller().add(_network(document), node.attachment(document))
    assert node.diary() == ["ADD one", "ADD two", "DEL three", "DEL two", "DEL one"]
    assert node.cache.all() == []


def test_a_failed_add_whose_del_fails_is_kept_for_later(node: Node) -> None:
    """The error is still that of ADD; the next DEL, when the plugin is mended, releases it."""
    node.plugin("one", "exit 1")
    document, caller = node.document("one"), node.caller()
    with pytest.raises(TrivetError, match="one ADD") as raised:
        caller.add(_network(document), node.attachment(document))
    assert "one DEL" in str(raised.value.__notes__)
    node.plugin("one")
    caller.delete(node.cache.all()[0])
    assert node.cache.all() == []


def test_a_plugin_that_hangs_at_add(node: Node) -> None:
    """The time-out is the error, and DEL is called."""
    node.plugin("one", "[ $CNI_COMMAND != ADD ] || sleep 1000")
    document = node.document("one")
    with pytest.raises(DeadlineExceeded, match="one ADD did not end"):
        node.caller(0.5).add(_network(document), node.attachment(document))
    assert node.diary() == ["ADD one", "DEL one"]


def test_every_plugin_is_asked_to_delete(node: Node) -> None:
    """One that fails does not spare the others; the attachment stays until all have succeeded."""
    node.plugin("one")
    node.plugin("two", "[ $CNI_COMMAND = ADD ] || exit 1")
    document, caller = node.document("one", "two"), node.caller()
    caller.add(_network(document), node.attachment(document))
    with pytest.raises(TrivetError, match="two DEL"):
        caller.delete(node.cache.all()[0])
    assert node.diary()[2:] == ["DEL two", "DEL one"]
    assert len(node.cache.all()) == 1


def test_del_says_that_the_namespace_is_gone(node: Node) -> None:
    """CNI_NETNS is empty then, and not a path that may since be somebody else's."""
    node.plugin("one", f'echo "<$CNI_NETNS>" > {node.directory}/netns')
    document, caller = node.document("one"), node.caller()
    netns = node.directory / "pod"
    netns.touch()
    caller.add(_network(document), node.attachment(document, netns=str(netns)))
    assert (node.directory / "netns").read_text() == f"<{netns}>\n"
    netns.unlink()
    caller.delete(node.cache.all()[0])
    assert (node.directory / "netns").read_text() == "<>\n"


@pytest.mark.parametrize("more", [{"disableCheck": True}, {"disableCheck": "true"}, {"cniVersion": "0.3.1"}])
def test_check_is_not_issued_where_it_may_not(node: Node, more: dict[str, Any]) -> None:
    """Neither where the configuration forbids it, nor to plugins that are older than it."""
    node.plugin("one")
    document, caller = {**node.document("one"), **more}, node.caller()
    caller.add(_network(document), node.attachment(document))
    caller.check(node.cache.all()[0])
    assert node.diary() == ["ADD one"]


def test_check_of_an_add_that_never_ended(node: Node) -> None:
    """There is no result to compare with: nothing is asked."""
    node.plugin("one")
    node.caller().check(node.attachment(node.document("one")))
    assert node.diary() == []


def test_status_stops_at_the_first_plugin_that_is_not_ready(node: Node) -> None:
    """Its message is the error; before 1.1.0 nobody is asked."""
    node.plugin("one")
    node.plugin("two", 'echo \'{"code": 50, "msg": "no uplink"}\'; exit 1')
    node.plugin("three")
    node.caller().status(_network(node.document("one", "two", version="1.0.0")))
    assert node.diary() == []
    with pytest.raises(TrivetError, match=r"two STATUS: no uplink \(code 50\)"):
        node.caller().status(_network(node.document("one", "two", "three")))
    assert node.diary() == ["STATUS one", "STATUS two"]


def test_garbage_of_every_network_is_deleted(node: Node) -> None:
    """With the configuration that it was added with, also that of a network which is configured no longer."""
    node.plugin("one")
    node.plugin("former")
    caller = node.caller()
    former = {**node.document("former"), "name": "former"}
    document = node.document("one")
    for container_id in ("kept", "stale"):
        caller.add(_network(document), node.attachment(document, container_id=container_id))
    caller.add(_network(former), node.attachment(former, container_id="stale"))
    valid = node.cache.of_container("kept")
    assert caller.collect_garbage(_network(document), valid) == []
    assert sorted(node.diary()[3:5]) == ["DEL former", "DEL one"]
    assert node.diary()[5:] == ["GC one"]
    for key in ("cni.dev/valid-attachments", "cni.dev/attachments"):
        assert node.stdin("one", "GC")[key] == [{"containerID": "kept", "ifname": "eth0"}]
    assert node.cache.all() == valid


@pytest.mark.parametrize("more", [{"disableGC": True}, {"cniVersion": "1.0.0"}])
def test_gc_is_not_issued_where_it_may_not(node: Node, more: dict[str, Any]) -> None:
    """What the caller itself knows to be stale is deleted all the same; also without any configuration."""
    node.plugin("one")
    document, caller = {**node.document("one"), **more}, node.caller()
    for network in (_network(document), None):
        caller.add(_network(document), node.attachment(document))
        caller.collect_garbage(network, [])
        assert node.diary()[-1] == "DEL one"
        assert node.cache.all() == []


def test_garbage_collection_goes_on_after_a_failure(node: Node) -> None:
    """All errors are given back."""
    node.plugin("one", "[ $CNI_COMMAND = ADD ] || exit 1")
    document, caller = node.document("one"), node.caller()
    for container_id in ("a", "b"):
        caller.add(_network(document), node.attachment(document, container_id=container_id))
    errors = caller.collect_garbage(_network(document), [])
    assert sorted(str(error).split()[3] for error in errors) == ["DEL:", "DEL:", "GC:"]


def test_runtime_config_is_for_who_declared_the_capability(node: Node) -> None:
    """And the declaration itself is not handed on."""
    node.plugin("one")
    node.plugin("two")
    document = node.document("one", "two")
    document["plugins"][0]["capabilities"] = {"portMappings": True, "dns": False}
    capabilities = {"portMappings": [{"hostPort": 80}], "dns": {"servers": ["1.1.1.1"]}}
    node.caller().add(_network(document), node.attachment(document, capabilities=capabilities))
    assert node.stdin("one", "ADD")["runtimeConfig"] == {"portMappings": [{"hostPort": 80}]}
    assert "capabilities" not in node.stdin("one", "ADD")
    assert "runtimeConfig" not in node.stdin("two", "ADD")


def test_no_two_attachments_share_a_file(node: Node) -> None:
    """Whatever hyphens are in their names."""
    document = node.document("one")
    node.cache.put(node.attachment({**document, "name": "a-b"}, container_id="c"))
    node.cache.put(node.attachment({**document, "name": "a"}, container_id="b-c"))
    assert len(node.cache.all()) == 2
    assert [one.network for one in node.cache.of_container("c")] == ["a-b"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"container_id": "c1"}', "null"])
def test_a_torn_cache_file_is_left_out(node: Node, content: str) -> None:
    """A machine that lost power does not keep the daemon from starting."""
    whole = node.attachment(node.document("one"), result=RESULT)
    node.cache.put(whole)
    directory = node.directory / "cache"
    (directory / "c2:eth0:net").write_text(content)
    (directory / ".c3:eth0:net").write_text(content)
    assert node.cache.all() == [whole]
    node.cache.put(replace(whole, result=None))
    assert node.cache.all()[0].result is None


def test_a_cache_that_cannot_be_written_fails_add_before_any_plugin(node: Node) -> None:
    """What nobody could take back is not added."""
    node.plugin("one")
    document, caller = node.document("one"), node.caller()
    cache = node.directory / "cache"
    os.rmdir(cache)
    Path(cache).touch()
    with pytest.raises(TrivetError, match="CNI cache"):
        caller.add(_network(document), node.attachment(document))
    assert node.diary() == []


def test_who_asks_for_the_status_has_the_plugins_loaded(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every version, those that addresses come from too, and the packet filter; what cannot be imported is an error
    of the network."""
    monkeypatch.syspath_prepend(tmp_path)
    names = ("late_link", "late_addresses", "late_filter")
    for name in names:
        (tmp_path / f"{name}.py").write_text("Driver = 1\n")
    (tmp_path / "late_broken.py").write_text("1 / 0\n")
    modules = {name: name for name in (*names, "late_broken")}
    plugins = Plugins([str(node.bin)], modules, packet_filter="late_filter:Driver")
    caller = Caller(plugins, node.cache)
    document = {"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": names[0], "ipam": {"type": names[1]}}]}
    caller.status(_network(document))
    assert [name in sys.modules for name in names] == [True, True, True]
    with pytest.raises(PluginFailed, match="late_broken: ZeroDivisionError"):
        caller.status(_network(node.document("late_broken", version="1.0.0")))
    for name in names:
        del sys.modules[name]
