"""host-local by many processes at once, by processes that are killed, and on a disk that is full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.ipam.host_local import plugin
from cni_plugins.ipam.host_local.leases import Lease, list_leases
from cni_plugins.ipam.host_local.store import LeaseStore
from runtime_core.cni.request import Request
from runtime_core.errors import AlreadyExists

_ROOT = Path(__file__).parents[3]
#: VERB and the configuration in, the result out; argv has the container's id.
_ONE_CALL = """
import json, sys
sys.path.insert(0, sys.argv[1])
from cni_plugins.ipam.host_local import plugin
from runtime_core.cni.request import Request
request = Request(config=json.load(sys.stdin), container_id=sys.argv[3], interface="eth0")
print(json.dumps(getattr(plugin, sys.argv[2])(request)))
"""
#: Leases on a tmpfs of its own until it is full, a release, and another lease.
_FULL_DISK = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from cni_plugins.ipam.host_local import plugin
from cni_plugins.ipam.host_local.leases import list_leases
from runtime_core.cni.request import Request
from runtime_core.errors import ResourceExhausted
from runtime_core.kernel import syscalls
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
syscalls.mount("tmpfs", sys.argv[2], "tmpfs", 0, "size=200k")
config = json.load(sys.stdin)
def request(number):
    return Request(config=config, container_id=f"{number:0200d}", interface="eth0")
given = []
refusals = []
while not refusals:
    try:
        given.append(plugin.add(request(len(given)))["ips"][0]["address"].partition("/")[0])
    except ResourceExhausted as error:
        refusals.append(str(error))
listed = [lease.address for lease in list_leases(sys.argv[2])]
for number in range(10):
    plugin.delete(request(number))
again = plugin.add(request(0))["ips"][0]["address"].partition("/")[0]
print(json.dumps({"given": given, "listed": listed, "refusal": refusals[0], "again": again,
                  "left": len(list_leases(sys.argv[2]))}))
"""


def _config(directory: Path, *subnets: str) -> dict[str, Any]:
    ranges = [[{"subnet": subnet}] for subnet in subnets or ("10.0.0.0/24", "fd00::/64")]
    return {"cniVersion": "1.1.0", "name": "net", "ipam": {"type": "host-local", "dataDir": str(directory), "ranges": ranges}}


def _start(verb: str, container: str, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-IS", "-c", _ONE_CALL, str(_ROOT), verb, container],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip


def _call(verb: str, container: str, config: dict[str, Any], **environment: str) -> tuple[int, bytes]:
    process = _start(verb, container, **environment)
    output, complaint = process.communicate(json.dumps(config).encode())
    assert process.returncode <= 0, complaint.decode()
    return process.returncode, output


def _request(config: dict[str, Any], container: str) -> Request:
    return Request(config=config, container_id=container, interface="eth0")


def test_200_processes_at_once(tmp_path: Path) -> None:
    """Each gets an address of each family, all distinct and all written down; then threads of one process release them."""
    config = _config(tmp_path)
    running = []
    for number in range(200):
        running.append(_start("add", f"c{number}"))
        running[-1].stdin.write(json.dumps(config).encode())  # type: ignore[union-attr]
    for process in running:  # they have started, and wait for the end of the configuration
        process.stdin.close()  # type: ignore[union-attr]
        process.stdin = None
    outputs = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * 200
    given = {ip["address"].partition("/")[0] for output in outputs for ip in json.loads(output)["ips"]}
    assert len(given) == 400
    assert {lease.address for lease in list_leases(str(tmp_path))} == given
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: plugin.delete(_request(config, f"c{number}")), range(200)))
    assert list_leases(str(tmp_path)) == []


@pytest.mark.parametrize("point", ["ipam.locked", "ipam.changed", "ipam.committed"])
@pytest.mark.parametrize("verb", ["add", "delete"])
def test_killed_at_any_step(tmp_path: Path, verb: str, point: str) -> None:
    """No lock stays; both families' addresses are there, or neither; DEL releases them and the pool is whole again."""
    config = _config(tmp_path, "10.0.0.0/30", "fd00::/126")  # one IPv4 address to give: a leak would be the end
    if verb == "delete":
        plugin.add(_request(config, "c1"))
    status, output = _call(verb, "c1", config, TRIVET_FAILPOINTS=f"{point}=kill")
    assert (status, output) == (-signal.SIGKILL, b"")
    leases = list_leases(str(tmp_path))
    is_kept = (verb == "add") == (point == "ipam.committed")
    assert leases == ([Lease("net", "10.0.0.2", "c1", "eth0"), Lease("net", "fd00::2", "c1", "eth0")] if is_kept else [])
    if is_kept:
        with pytest.raises(AlreadyExists):
            plugin.add(_request(config, "c1"))
    plugin.delete(_request(config, "c1"))
    assert [ip["address"] for ip in plugin.add(_request(config, "c2"))["ips"]][0] == "10.0.0.2/30"


@pytest.mark.parametrize("point", ["ipam.taken-over", "ipam.removed"])
def test_killed_while_it_takes_over(tmp_path: Path, point: str) -> None:
    """Every reservation of the reference plugin is there once, and what is released afterwards does not come back."""
    (tmp_path / "net").mkdir()
    for number in range(2, 12):
        (tmp_path / "net" / f"10.0.0.{number}").write_text(f"c{number}\r\neth0")
    config = _config(tmp_path, "10.0.0.0/24")
    assert _call("add", "new", config, TRIVET_FAILPOINTS=f"{point}=kill")[0] == -signal.SIGKILL
    plugin.delete(_request(config, "c2"))
    assert sorted(lease.container_id for lease in list_leases(str(tmp_path))) == sorted(f"c{number}" for number in range(3, 12))
    assert not [name for name in os.listdir(tmp_path / "net") if name.startswith("10.")]


@pytest.mark.parametrize("calls", range(1, 25, 2))
def test_killed_in_the_middle_of_many_calls(tmp_path: Path, calls: int) -> None:
    """Wherever it is by then: all that it said it took or gave back is so, and the two tables agree."""
    process = subprocess.Popen(
        [sys.executable, "-IS", "-c", _MANY_CALLS, str(_ROOT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps(_config(tmp_path, "10.0.0.0/24")))
    process.stdin.close()
    process.stdin = None
    said = [process.stdout.readline() for _call in range(calls)]
    process.kill()
    said += process.communicate()[0].splitlines(keepends=True)
    taken: set[str] = set()
    for verb, container in (line.split() for line in said if line.endswith("\n")):
        (taken.add if verb == "add" else taken.discard)(container)
    found = {lease.container_id for lease in list_leases(str(tmp_path))}
    assert len(found ^ taken) <= 1  # the call that was under way may have been kept
    with LeaseStore(str(tmp_path), "net") as store:
        keys = [address for address, _owner, _interface in store.leases()]
        assert keys
        assert store.first_free(keys[0], keys[-1], ()) not in keys
        for key in keys:
            store.delete(key)
        assert store.first_free(keys[0], keys[-1], ()) == keys[0]


_MANY_CALLS = """
import itertools, json, sys
sys.path.insert(0, sys.argv[1])
from cni_plugins.ipam.host_local import plugin
from runtime_core.cni.request import Request
config = json.load(sys.stdin)
for number in itertools.count():
    for verb, which in (("add", number), ("delete", number - 3)):
        getattr(plugin, verb)(Request(config=config, container_id=f"c{which}", interface="eth0"))
        print(verb, f"c{which}", flush=True)
"""


def test_a_killed_holder_of_the_lock_is_not_waited_for(tmp_path: Path) -> None:
    """The lock goes with its process, and so does what this one had reserved and not committed."""
    config = _config(tmp_path)
    reader, writer = os.pipe()
    holder = subprocess.Popen(
        [sys.executable, "-IS", "-c", _HOLDER, str(_ROOT), str(tmp_path)], stdin=subprocess.PIPE, stdout=writer,
    )  # fmt: skip
    os.close(writer)
    assert os.read(reader, 7) == b"locked\n"
    waiting = _start("add", "c1")
    waiting.stdin.write(json.dumps(config).encode())  # type: ignore[union-attr]
    waiting.stdin.close()  # type: ignore[union-attr]
    waiting.stdin = None
    holder.kill()
    output = waiting.communicate()[0]
    holder.communicate()
    os.close(reader)
    assert [ip["address"] for ip in json.loads(output)["ips"]] == ["10.0.0.2/24", "fd00::2/64"]


_HOLDER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from cni_plugins.ipam.host_local.store import LeaseStore
with LeaseStore(sys.argv[2], "net") as store:
    store.insert(b"\\x04\\x0a\\x00\\x00\\x02", "holder", "eth0")
    os.write(1, b"locked\\n")
    os.read(0, 1)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """The refusal says so, what was given is written down, and DEL works, so that room comes again."""
    done = subprocess.run(
        [sys.executable, "-IS", "-c", _FULL_DISK, str(_ROOT), str(tmp_path)],
        input=json.dumps(_config(tmp_path, "10.0.0.0/16")).encode(), capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stdout)
    assert "full" in answer["refusal"]
    assert len(answer["given"]) > 50
    assert sorted(answer["given"]) == sorted(answer["listed"])
    assert answer["again"] not in answer["given"][10:]
    assert answer["left"] == len(answer["given"]) - 9
