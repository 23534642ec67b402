"""Our CNI plugins under hostile calls: every answer is the specification's, and nothing is left."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cni_plugins import skel
from cni_plugins.ipam.host_local.leases import list_leases
from runtime_core.registry import installed
from tests.fuzz import cni_calls
from tests.fuzz.cni_calls import Call
from tests.kernel.cni import main_node
from tests.kernel.cni.main_node import Node, add_pair, on
from tests.kernel.cni.port_traffic import rules
from tests.kernel.cni.test_executables import wait_for

_SECONDS = float(os.environ.get("TRIVET_FUZZ_SECONDS", "30"))
#: the short form makes the same calls each time; a long one makes others
_SEED = int(os.environ.get("TRIVET_FUZZ_SEED", time.time_ns() % 10**9 if "TRIVET_FUZZ_SECONDS" in os.environ else 20261201))
#: of the specification, section 5; 999 and what is like it would be a fault of ours
_CODES = (1, 2, 3, 4, 5, 6, 7, 11, 50, 51)
_ROOT = Path(__file__).parents[2]
#: of a node without any attachment
_LINKS = {"lo", "up0", "up1", "dev0", "dev1", "node0"}
_LOOK_EVERY = 20


class Fuzz:
    """A node with two pods: one has an attachment all the while, the other is called for."""

    def __init__(self, node: Node) -> None:
        self.node, self.living, self.pod = node, node.pod("living"), node.pod("pod")
        self._modules = {driver.name: driver.entry for driver in installed("cni")}
        for name in ("up", "dev"):
            add_pair(f"{name}0", f"{name}1")
        with on(None) as links:
            links.add_bridge("node0")
        self.config = node.config("bridge", bridge="living0", isGateway=True)
        self.previous = {"cniVersion": "1.1.0", **self.attach(self.living, "c9")}
        self.rules = rules()
        self.recent: list[Call] = []

    def attach(self, pod: Path, container_id: str) -> dict[str, Any]:
        return self.node.call("ADD", self.config, pod, container_id=container_id)

    def detach(self, pod: Path, container_id: str) -> None:
        self.node.call("DEL", self.config, pod, container_id=container_id)

    def run(self, rng: random.Random) -> None:
        """One call, what takes it down, and a look at what is left."""
        is_chained = rng.random() < 0.5
        previous = {"cniVersion": "1.1.0", **self.attach(self.pod, "c1")} if is_chained else self.previous
        call = cni_calls.make(rng, self.node.directory, self.pod, previous)
        self.recent.append(call)
        status = self.answer(call)
        for number, one in enumerate(self.ends(call)):
            assert self.answer(one) == 0 or status != 0 or number, f"what ADD took DEL refuses: {call}"
        if is_chained:
            self.detach(self.pod, "c1")
        self.latest(call)

    def ends(self, call: Call) -> list[Call]:
        """DEL of what an ADD may have made: written as it was, and as it should have been."""
        as_it_was = Call(call.kind, "DEL", call.text, {**call.variables, "COMMAND": "DEL"}, call.valid)
        valid = Call(call.kind, "DEL", json.dumps(call.valid).encode(), self.variables("DEL"), call.valid)
        return [as_it_was, valid] if call.verb == "ADD" else []

    def variables(self, verb: str) -> dict[str, str]:
        return {"COMMAND": verb, "CONTAINERID": "c1", "NETNS": str(self.pod), "IFNAME": "eth0", "ARGS": "", "PATH": "/nowhere"}

    def answer(self, call: Call) -> int:
        """The exit status; the answer is one of the specification's."""
        for name in cni_calls.VARIABLES:
            os.environ.pop(f"CNI_{name}", None)
        os.environ.update({f"CNI_{name}": value for name, value in call.variables.items()})
        status, output = skel.serve_call(call.kind, self._modules, "", call.text, [])
        check_answer(call, status, output)
        return status

    def latest(self, call: Call) -> None:
        """Only bridges may be left: those that an attachment made are the node's from then on."""
        with on(self.pod) as links:
            inside = {link.name for link in links.all()} - {"lo"}
        with on(None) as links:
            present = {link.name: link for link in links.all()}
            for name, link in present.items():
                if link.kind == "bridge" and name not in ("node0", "living0"):
                    links.remove(name)
        kept = {one["name"] for one in self.previous["interfaces"] if not one.get("sandbox")}
        left = {name for name, link in present.items() if link.kind != "bridge"} - _LINKS - kept
        leases = [lease for lease in list_leases(str(self.node.directory / "ipam")) if lease.container_id != "c9"]
        assert (inside, left, leases) == (set(), set(), []), f"left by {call}"
        if len(self.recent) >= _LOOK_EVERY:
            assert rules() == self.rules, f"rules are left by one of {self.recent}"
            self.recent.clear()


def check_answer(call: Call, status: int, output: bytes) -> None:
    assert status in (0, 1), f"exit status {status}: {call}"
    if status == 0:
        found = json.loads(output) if output else {}
        assert call.verb in ("ADD", "VERSION") or not output, f"printed {output!r}: {call}"
        assert call.verb != "ADD" or found["cniVersion"], f"printed {output!r}: {call}"
        return
    error = json.loads(output)
    assert set(error) == {"cniVersion", "code", "msg", "details"}, f"{error}: {call}"
    assert error["code"] in _CODES, f"{error}: {call}"
    assert error["msg"] and "Traceback" not in error["msg"], f"{error}: {call}"


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory, where there is such a place: the leases of a thousand calls would wait for the disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as path:
        yield Path(path)


@pytest.fixture
def fuzz(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuzz]:
    for name in cni_calls.VARIABLES:
        monkeypatch.setenv(f"CNI_{name}", "")
    monkeypatch.chdir(directory)  # a path that is none leads nowhere else
    with main_node.made(directory) as node:
        yield Fuzz(node)


@pytest.mark.timeout(_SECONDS * 2 + 120)
def test_hostile_calls_are_answered_and_leave_nothing(fuzz: Fuzz) -> None:
    """Of every verb of every plugin, within this process."""
    print(f"TRIVET_FUZZ_SEED={_SEED}")
    rng, deadline = random.Random(_SEED), time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        fuzz.run(rng)
    fuzz.node.call("CHECK", {**fuzz.config, "prevResult": fuzz.previous}, fuzz.living, container_id="c9")


@pytest.mark.timeout(_SECONDS + 120)
@pytest.mark.parametrize("has_service", [True, False], ids=["service", "alone"])
def test_hostile_calls_of_the_executables(fuzz: Fuzz, directory: Path, has_service: bool) -> None:
    """By their processes, with the warm service and without it: nothing on standard error."""
    print(f"TRIVET_FUZZ_SEED={_SEED}")
    socket, programs = directory / "run" / "service.sock", directory / "bin"
    command = [sys.executable, "-m", "cni_plugins", "install", "--bin-dir", str(programs), "--socket", str(socket)]
    subprocess.run([*command, *([] if has_service else ["--no-service"])], cwd=_ROOT, check=True, capture_output=True)
    rng, deadline = random.Random(_SEED), time.monotonic() + _SECONDS / 4
    try:
        while time.monotonic() < deadline:
            call = cni_calls.make(rng, directory, fuzz.pod, fuzz.previous)
            for one in (call, *fuzz.ends(call)):
                variables = {f"CNI_{name}": value for name, value in one.variables.items()}
                done = subprocess.run(
                    [programs / one.kind], input=one.text, env={"PATH": os.environ["PATH"], **variables},
                    capture_output=True, check=False, cwd=directory, timeout=60,
                )  # fmt: skip
                if one.verb:  # without it the executable says what it is
                    check_answer(one, done.returncode, done.stdout)
                assert done.stderr == b"", f"{done.stderr!r}: {one}"
            fuzz.latest(call)
    finally:
        if socket.parent.exists():
            wait_for(socket.exists)
            os.kill(int(Path(f"{socket}.lock").read_text()), signal.SIGTERM)
            wait_for(lambda: not socket.exists())
