"""The network driver cni: its directory watched, its readiness, and pods over a change of configuration."""

from __future__ import annotations

import functools
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.wait import wait_for
from plugins.networks.cni import CniNetwork
from runtime_core.cni.readiness import Readiness
from runtime_core.errors import InvalidArgument, TrivetError, Unavailable
from runtime_core.interfaces.network import NetworkStatus, PodNetwork
from tests.unit.cni.conftest import Node

Make = Callable[[], CniNetwork]
_SECONDS = 20
_NOT_READY = 'echo \'{"code": 50, "msg": "no uplink"}\'; exit 1'


@pytest.fixture
def make(node: Node) -> Iterator[Make]:
    made: list[CniNetwork] = []

    def make() -> CniNetwork:
        made.append(CniNetwork(conf_dir=node.conf, bin_dirs=[str(node.bin)], cache_dir=node.directory / "cache"))
        return made[-1]

    yield make
    for network in made:
        network.close()


def _write(node: Node, document: Any, name: str = "10-net.conflist") -> None:
    """As an installer does it: whole, by a rename."""
    node.conf.mkdir(exist_ok=True)
    (node.conf / ".tmp").write_text(document if isinstance(document, str) else json.dumps(document))
    (node.conf / ".tmp").rename(node.conf / name)


def _pod(node: Node, **more: Any) -> PodNetwork:
    fields: dict[str, Any] = {"pod_id": "p1", "name": "n", "namespace": "ns", "uid": "u", "netns_path": str(node.directory)}
    return PodNetwork(**{**fields, **more})


def _until(network: CniNetwork, message: str) -> None:
    wait_for(f"the message {message!r}", lambda: message in network.status().message, _SECONDS)
    assert not network.status().is_ready
    assert network.status().reason == "NetworkPluginNotReady"


def _until_ready(network: CniNetwork) -> None:
    wait_for("a ready network", lambda: network.status().is_ready, _SECONDS)


def test_the_directory_comes_breaks_is_mended_and_goes(node: Node, make: Make) -> None:
    """At each step NetworkReady says what is the matter, and a pod is refused with the same words or attached."""
    node.plugin("one")
    shutil.rmtree(node.conf)
    network = make()
    assert network.status().message == f"no directory {node.conf}"
    with pytest.raises(Unavailable, match="no directory"):
        network.attach(_pod(node))
    node.conf.mkdir()
    _until(network, f"no network configuration in {node.conf}")
    _write(node, node.document("one"))
    _until_ready(network)
    assert network.attach(_pod(node)).addresses == ["10.0.0.2"]
    _write(node, "{")
    _until(network, "10-net.conflist: Expecting")
    _write(node, node.document("../one"))
    _until(network, "plugins[0].type '../one' is not a plugin name")
    network.detach(_pod(node))
    _write(node, node.document("one"))
    _until_ready(network)
    (node.conf / "10-net.conflist").unlink()
    _until(network, "no network configuration")
    node.conf.rename(node.directory / "away")
    _until(network, "no directory")
    (node.directory / "away").rename(node.conf)
    _until(network, "no network configuration")
    _write(node, node.document("one"))
    _until_ready(network)


def test_a_directory_several_levels_below_what_exists(node: Node) -> None:
    """The nearest directory that there is is watched, and then the next one."""
    node.plugin("one")
    node.conf = node.directory / "etc" / "cni" / "net.d"
    network = CniNetwork(conf_dir=node.conf, bin_dirs=[str(node.bin)], cache_dir=node.directory / "cache")
    assert network.status().message == f"no directory {node.conf}"
    node.conf.mkdir(parents=True)
    _until(network, "no network configuration")
    _write(node, node.document("one"))
    _until_ready(network)
    network.close()


def test_a_directory_that_is_a_link(node: Node, make: Make) -> None:
    """Exchanged at once, as who delivers configurations by volume does it."""
    node.plugin("one")
    node.plugin("two", _NOT_READY)
    for name in ("one", "two"):
        (node.directory / name).mkdir()
        (node.directory / name / "10.conflist").write_text(json.dumps(node.document(name)))
    node.conf.rmdir()
    node.conf.symlink_to(node.directory / "one")
    network = make()
    _until_ready(network)
    (node.directory / "new").symlink_to(node.directory / "two")
    os.rename(node.directory / "new", node.conf)
    _until(network, "no uplink")


def test_a_plugin_that_is_added_to_the_networks_own_directory(node: Node, make: Make) -> None:
    """It is in the chain of the next pod."""
    node.plugin("one")
    node.plugin("two", _NOT_READY)
    _write(node, node.document("one"))
    network = make()
    _until_ready(network)
    (node.conf / "net").mkdir()
    (node.conf / "net" / "10-two.conf").write_text('{"type": "two"}')
    _until(network, "no uplink")


def test_where_inotify_is_refused_it_polls(node: Node, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its instances are limited by user; the configuration is found all the same."""
    monkeypatch.setattr("runtime_core.cni.watch._POLL_SECONDS", 0.05)
    monkeypatch.setattr("runtime_core.cni.watch.WatchedDirectory._add_watches", lambda _self, _notifier: False)
    node.plugin("one")
    network = make()
    _write(node, node.document("one"))
    _until_ready(network)


def test_pods_are_detached_with_the_configuration_that_attached_them(node: Node, make: Make) -> None:
    """The new one is for new pods; a pod that was attached stays attached as it was."""
    node.plugin("old", answer={"ips": [{"address": "10.0.0.7/24"}]})
    node.plugin("new")
    _write(node, node.document("old"))
    network = make()
    network.attach(_pod(node))
    _write(node, {**node.document("new"), "name": "other"})
    wait_for("the new configuration", lambda: "STATUS new" in node.diary(), _SECONDS)
    assert network.attach(_pod(node)).addresses == ["10.0.0.7"]
    assert network.attach(_pod(node, pod_id="p2")).addresses == ["10.0.0.2"]
    for pod_id in ("p1", "p2", "p1"):
        network.detach(_pod(node, pod_id=pod_id))
    assert [line for line in node.diary() if "STATUS" not in line] == ["ADD old", "ADD new", "DEL old", "DEL new"]


def test_an_add_that_was_interrupted_is_taken_back_first(node: Node, make: Make) -> None:
    """The daemon was killed between the first plugin and the result: the retry begins anew."""
    node.plugin("one")
    document = node.document("one")
    _write(node, document)
    node.cache.put(node.attachment(document, container_id="p1"))
    network = make()
    network.attach(_pod(node))
    assert [line for line in node.diary() if "STATUS" not in line] == ["DEL one", "ADD one"]


@pytest.mark.parametrize("field", ["name", "namespace", "uid"])
@pytest.mark.parametrize("value", ["a;IP=10.0.0.1", "a=b", "a\0b"])
def test_a_pod_cannot_write_arguments(node: Node, make: Make, field: str, value: str) -> None:
    """InvalidArgument names the field; no plugin is called."""
    node.plugin("one")
    _write(node, node.document("one", version="1.0.0"))
    with pytest.raises(InvalidArgument, match=f"metadata.{field}"):
        make().attach(_pod(node, **{field: value}))
    assert node.diary() == []


def test_addresses_of_the_host_are_not_the_pods(node: Node, make: Make) -> None:
    """Those of interfaces without a sandbox; an address of no interface is the pod's."""
    interfaces = [{"name": "cni0"}, {"name": "eth0", "sandbox": "/ns"}]
    ips = [
        {"address": "10.0.0.1/24", "interface": 0},
        {"address": "10.0.0.2/24", "interface": 1},
        {"address": "10.0.0.3/24"},
        {"address": "10.0.0.4/24", "interface": 99},
    ]
    node.plugin("one", answer={"interfaces": interfaces, "ips": ips})
    _write(node, node.document("one"))
    assert make().attach(_pod(node)).addresses == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]


# -- STATUS


def test_a_plugin_that_is_not_ready_is_quoted(node: Node, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is ready again when the plugin is, without a change of the configuration."""
    monkeypatch.setattr("plugins.networks.cni.Readiness", functools.partial(Readiness, fresh_seconds=0.1))
    node.plugin("one", _NOT_READY)
    _write(node, node.document("one"))
    network = make()
    assert network.status().message == "CNI plugin one STATUS: no uplink (code 50)"
    node.plugin("one")
    wait_for("a ready network", lambda: network.status().is_ready, _SECONDS)


def test_a_missing_plugin_is_named(node: Node, make: Make) -> None:
    """Before the first pod fails for it."""
    _write(node, node.document("absent"))
    assert "'absent' is neither in" in make().status().message


def test_old_configurations_are_ready_by_being_valid(node: Node, make: Make) -> None:
    """Plugins before 1.1.0 know no STATUS, and are not called."""
    node.plugin("one", _NOT_READY)
    _write(node, node.document("one", version="1.0.0"))
    assert make().status().is_ready
    assert node.diary() == []


def test_status_executes_no_plugin_at_every_call(node: Node, make: Make) -> None:
    """An answer serves for some seconds."""
    node.plugin("one")
    _write(node, node.document("one"))
    network = make()
    for _number in range(1000):
        assert network.status().is_ready
    assert node.diary().count("STATUS one") == 1


def test_status_never_waits(node: Node, make: Make) -> None:
    """A plugin that hangs holds neither the daemon's start for long nor anybody who looks."""
    node.plugin("one", "[ $CNI_COMMAND != STATUS ] || sleep 15")
    _write(node, node.document("one"))
    network = make()
    begun = time.monotonic()
    status = network.status()
    assert time.monotonic() - begun < 0.5
    assert (status.is_ready, status.message) == (False, "the network's plugins have not answered STATUS yet")
    assert network.attach(_pod(node)).addresses == ["10.0.0.2"]


def test_an_old_answer_is_renewed_in_the_background() -> None:
    """Who looks at it gets the old one, the next one gets the new one; nobody looks, nobody is asked."""
    answers: queue.Queue[NetworkStatus] = queue.Queue()
    asked = threading.Semaphore(0)

    def ask() -> NetworkStatus:
        asked.release()
        return answers.get(timeout=_SECONDS)

    readiness = Readiness(ask, fresh_seconds=0.05)
    readiness.refresh()
    answers.put(NetworkStatus(is_ready=True))
    readiness.wait_first(_SECONDS)
    assert asked.acquire(timeout=_SECONDS)
    assert not asked.acquire(timeout=0.2)
    assert readiness.latest().is_ready
    answers.put(NetworkStatus(is_ready=False, message="gone"))
    wait_for("the new answer", lambda: readiness.latest().message == "gone", _SECONDS)
    answers.put(NetworkStatus(is_ready=True))
    readiness.close()


def test_an_answer_about_what_has_changed_since_is_dropped() -> None:
    """The question was about another configuration."""
    answers: queue.Queue[NetworkStatus] = queue.Queue()
    asked = threading.Semaphore(0)

    def ask() -> NetworkStatus:
        asked.release()
        return answers.get(timeout=_SECONDS)

    readiness = Readiness(ask, fresh_seconds=1000)
    readiness.refresh()
    assert asked.acquire(timeout=_SECONDS)
    readiness.refresh()
    answers.put(NetworkStatus(is_ready=False, message="about the old one"))
    assert asked.acquire(timeout=_SECONDS)
    assert "not answered" in readiness.latest().message
    answers.put(NetworkStatus(is_ready=True))
    wait_for("the answer", lambda: readiness.latest().is_ready, _SECONDS)
    readiness.close()


# -- CHECK


def test_check_tells_of_the_pod_that_fails(node: Node, make: Make) -> None:
    """In the background, the others not; a pod without an attachment is no failure."""
    node.plugin("one", '[ $CNI_COMMAND$CNI_CONTAINERID != CHECKp2 ] || { echo \'{"code": 9, "msg": "no route"}\'; exit 1; }')
    _write(node, node.document("one"))
    network = make()
    pods = [_pod(node, pod_id=pod_id) for pod_id in ("p1", "p2", "p3")]
    for pod in pods:
        network.attach(pod)
    complaints: queue.Queue[tuple[str, TrivetError]] = queue.Queue()
    network.check([*pods, _pod(node, pod_id="p4")], lambda pod_id, error: complaints.put((pod_id, error)))
    pod_id, error = complaints.get(timeout=_SECONDS)
    assert (pod_id, str(error)) == ("p2", "CNI plugin one CHECK: no route (code 9)")
    wait_for("all checks", lambda: node.diary().count("CHECK one") == 3, _SECONDS)
    assert complaints.empty()
    assert "DEL one" not in node.diary()


def test_check_does_not_hold_its_caller(node: Node, make: Make) -> None:
    """A plugin that hangs hangs alone; who is detached meanwhile is not complained of."""
    gate = node.directory / "gate"
    os.mkfifo(gate)
    node.plugin("one", f"[ $CNI_COMMAND != CHECK ] || {{ read line < {gate}; exit 1; }}")
    _write(node, node.document("one"))
    network = make()
    network.attach(_pod(node))
    complaints: list[str] = []
    network.check([_pod(node)], lambda pod_id, _error: complaints.append(pod_id))
    wait_for("CHECK", lambda: "CHECK one" in node.diary(), _SECONDS)
    network.detach(_pod(node))
    with gate.open("w") as file:
        file.write("go on\n")
    wait_for("its end", lambda: "cni-check" not in {thread.name for thread in threading.enumerate()}, _SECONDS)
    assert complaints == []


def test_garbage_is_collected_without_a_configuration(node: Node, make: Make) -> None:
    """And what could not be released is said."""
    node.plugin("one")
    _write(node, node.document("one"))
    network = make()
    for pod_id in ("p1", "p2"):
        network.attach(_pod(node, pod_id=pod_id))
    Path(node.conf, "10-net.conflist").unlink()
    _until(network, "no network configuration")
    node.plugin("one", "exit 1")
    with pytest.raises(TrivetError, match="one DEL"):
        network.collect_garbage([_pod(node)])
    node.plugin("one")
    network.collect_garbage([_pod(node)])
    assert [one.container_id for one in node.cache.all()] == ["p1"]


def test_what_a_killed_daemon_had_half_written_goes(node: Node, make: Make) -> None:
    """A whole entry stays."""
    cache = node.directory / "cache"
    (cache / ".c1:eth0:net").write_text('{"container')
    (cache / "c2:eth0:net").write_text("{}")
    make()
    assert os.listdir(cache) == ["c2:eth0:net"]
