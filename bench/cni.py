"""./run bench cni: the plugin executables beside those of containernetworking/plugins, interleaved, with the ratio of medians."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from cni_plugins.install import find_settings, install
from cni_plugins.ipam.host_local.leases import list_leases
from e2e.peers.build import build
from runtime_core.cni import result as cni_result
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.request import Request
from runtime_core.kernel import syscalls
from runtime_core.registry import installed
from runtime_core.testing import namespaces

Samples = dict[str, dict[str, list[float]]]
_GO_PLUGINS = ("bridge", "host-local", "portmap")
_RULES = 10_000
_PORT = 8080
_TICK = os.sysconf("SC_CLK_TCK")


class Side:
    """A set of plugins, a network namespace that plays its node, and a pod in it."""

    def __init__(self, name: str, home: Path, bin_dir: Path, backend: str, has_ports: bool) -> None:
        self.name, self.home, self.bin = name, home, bin_dir
        self.backend, self.has_ports = backend, has_ports
        self.environment = {"PATH": os.environ["PATH"], "CNI_PATH": str(bin_dir), "CNI_IFNAME": "eth0"}
        self.node, self.pod = home / "node", home / "pod"
        for path in (self.node, self.pod):
            namespaces.pin_namespace(path)

    def close(self) -> None:
        for path in self.home.iterdir():
            if os.path.ismount(path):
                namespaces.unpin_namespace(path)

    def service_seconds(self) -> float:
        """CPU time of the service and its children so far; nothing where there is none."""
        try:
            service = int((self.home.parent / "service.sock.lock").read_text())
        except FileNotFoundError:
            return 0.0
        if self.name != "trivet" or "TRIVET_CNI_SERVICE" in self.environment:
            return 0.0
        children = Path(f"/proc/{service}/task/{service}/children").read_text().split()
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15] for pid in (service, *children)]
        return sum(int(ticks) for one in fields for ticks in one) / _TICK

    def chain(self) -> list[dict[str, Any]]:
        ipam = {"type": "host-local", "dataDir": str(self.home / "ipam"), "ranges": [[{"subnet": "10.231.0.0/16"}]]}
        bridge = {
            "type": "bridge", "bridge": "bench0", "isDefaultGateway": True, "ipMasq": True, "ipMasqBackend": self.backend,
            "ipam": ipam,
        }  # fmt: skip
        ports = [{"hostPort": _PORT, "containerPort": 80, "protocol": "tcp"}]
        portmap = {"type": "portmap", "backend": self.backend, "runtimeConfig": {"portMappings": ports}}
        chain: list[dict[str, Any]] = [bridge, portmap] if self.has_ports else [bridge]
        return [{"cniVersion": "1.0.0", "name": "bench", **plugin} for plugin in chain]

    def add(self, container: str, pod: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for config in self.chain():
            if result:
                config["prevResult"] = result
            result = json.loads(self._call("ADD", config, container, pod))
        return result

    def delete(self, container: str, pod: Path, result: dict[str, Any]) -> None:
        for config in reversed(self.chain()):
            self._call("DEL", {**config, "prevResult": result}, container, pod)

    def _call(self, verb: str, config: dict[str, Any], container: str, pod: Path) -> bytes:
        """By the least of a process: what is measured is the plugin."""
        variables = {**self.environment, "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_NETNS": str(pod)}
        program = str(self.bin / config["type"])
        given, taken = os.memfd_create("stdin"), os.memfd_create("stdout")
        try:
            os.write(given, json.dumps(config).encode())
            os.lseek(given, 0, os.SEEK_SET)
            actions = [(os.POSIX_SPAWN_DUP2, given, 0), (os.POSIX_SPAWN_DUP2, taken, 1)]
            pid = os.posix_spawn(program, [program], variables, file_actions=actions)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            output = os.pread(taken, 1 << 20, 0)
        finally:
            os.close(given)
            os.close(taken)
        if status != 0:
            raise SystemExit(f"{self.name}: {config['type']} {verb} failed: {output.decode()}")
        return output


class InProcess(Side):
    """The same, called as trivet-cri calls it."""

    def __init__(self, home: Path, settings: dict[str, Any], backend: str, has_ports: bool) -> None:
        super().__init__("in-process", home, home / "none", backend, has_ports)
        self._plugins = Plugins([], settings["modules"], packet_filter=settings["packet_filter"])

    def _call(self, verb: str, config: dict[str, Any], container: str, pod: Path) -> bytes:
        request = Request(config=config, container_id=container, netns=str(pod), interface="eth0")
        found = self._plugins.call(config["type"], verb, request)
        return json.dumps(cni_result.export(found, config["cniVersion"]) if found else {}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--crowd", type=int, default=200, help="containers at once")
    parser.add_argument("--rules", type=int, default=_RULES, help="rules that are there already")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    samples: Samples = defaultdict(lambda: defaultdict(list))
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    with ExitStack() as closing:
        home = Path(tempfile.mkdtemp(prefix="bench-cni-"))
        closing.callback(shutil.rmtree, home)
        for backend in sorted({driver.name for driver in installed("packetfilter")} & {"nftables", "iptables"}, reverse=True):
            _compare(backend, home, arguments, samples)
    _print(samples)
    if arguments.json:
        arguments.json.write_text(json.dumps(samples))


def _compare(backend: str, home: Path, arguments: argparse.Namespace, samples: Samples) -> None:
    """nftables with a port map; iptables without one, as the reference set is mostly used."""
    with ExitStack() as closing:
        settings = find_settings(backend, socket=str(home / backend / "service.sock"))
        has_ports = backend == "nftables" and "portmap" in settings["modules"]
        ours, theirs, inside = _sides(backend, home / backend, settings, has_ports)
        alone = Side("trivet", _directory(home / backend / "alone"), ours.bin, backend, has_ports)
        alone.environment["TRIVET_CNI_SERVICE"] = "off"
        for side in (ours, theirs, inside, alone):
            closing.callback(side.close)
        what = f"{backend}{', a port map' if has_ports else ''}"
        _first_calls(ours, settings, what, samples)
        closing.callback(_end_service, settings["socket"])
        rows = {ours: f"{what}: %s", theirs: f"{what}: %s", inside: f"{what}: %s in-process", alone: f"{what}: %s, no service"}
        _rounds(rows, arguments.rounds, samples)
        if backend == "nftables":
            for side in (ours, theirs):
                with _entered(side.node):
                    _preload(arguments.rules)
            full = f"{what}: %s with {arguments.rules} rules"
            _rounds({ours: full, theirs: full}, max(5, arguments.rounds // 3), samples)
        for side in (ours, theirs):
            _crowd(side, arguments.crowd, what, samples)


def _sides(backend: str, home: Path, settings: dict[str, Any], has_ports: bool) -> tuple[Side, Side, Side]:
    install(_directory(home / "bin"), overwrite=False, settings=settings)
    go_bin = _directory(home / "go-bin")
    for program in _GO_PLUGINS:
        (go_bin / program).symlink_to(build(program))
    return (
        Side("trivet", _directory(home / "trivet"), home / "bin", backend, has_ports),
        Side("go", _directory(home / "go"), go_bin, backend, has_ports),
        InProcess(_directory(home / "in-process"), settings, backend, has_ports),
    )


def _directory(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _rounds(rows: dict[Side, str], count: int, samples: Samples) -> None:
    """`count` times each, in turns; one more before, which is not counted. In-process is set beside the Go set."""
    used: dict[Side, float] = defaultdict(float)
    before = {side: side.service_seconds() for side in rows}
    for number in range(count + 1):
        for side, row in rows.items() if number % 2 else reversed(rows.items()):
            with _entered(side.node):
                own = _processor_seconds()
                container = f"r{number}"
                begun = time.perf_counter()
                result = side.add(container, side.pod)
                added = time.perf_counter()
                side.delete(container, side.pod, result)
                ended = time.perf_counter()
                used[side] += _processor_seconds() - own
            if number:
                name = "go" if side.name == "go" else "trivet"
                samples[f"{row % 'ADD'}, ms"][name].append((added - begun) * 1000)
                samples[f"{row % 'DEL'}, ms"][name].append((ended - added) * 1000)
    for side, row in rows.items():
        seconds = used[side] + side.service_seconds() - before[side]
        samples[f"{row % 'ADD and DEL'}, CPU ms"]["go" if side.name == "go" else "trivet"].append(seconds * 1000 / (count + 1))
    for row in rows.values():
        for verb in ("ADD", "DEL"):
            go = samples[f"{next(r for s, r in rows.items() if s.name == 'go') % verb}, ms"]["go"]
            samples[f"{row % verb}, ms"].setdefault("go", go)


def _first_calls(side: Side, settings: dict[str, Any], what: str, samples: Samples) -> None:
    """The call that finds no service and starts it."""
    with _entered(side.node):
        for number in range(5):
            _end_service(settings["socket"])
            begun = time.perf_counter()
            result = side.add(f"first{number}", side.pod)
            samples[f"{what}: ADD that starts the service, ms"]["trivet"].append((time.perf_counter() - begun) * 1000)
            side.delete(f"first{number}", side.pod, result)


def _crowd(side: Side, count: int, what: str, samples: Samples) -> None:
    """All at once, as many processes as there are containers; then all away."""
    side.has_ports = False  # they would want one port
    pods = [side.home / f"crowd{number}" for number in range(count)]
    for pod in pods:
        namespaces.pin_namespace(pod)
    with _entered(side.node), ThreadPoolExecutor(count) as pool:
        begun = time.perf_counter()
        results = list(pool.map(lambda pod: side.add(pod.name, pod), pods))
        added = time.perf_counter()
        list(pool.map(lambda pod, result: side.delete(pod.name, pod, result), pods, results))
        ended = time.perf_counter()
        left = len(_links("veth")) + _masqueraded(results) + len(list_leases(str(side.home / "ipam")))
    samples[f"{what.partition(',')[0]}: {count} ADDs at once, per second"][side.name].append(count / (added - begun))
    samples[f"{what.partition(',')[0]}: {count} DELs at once, per second"][side.name].append(count / (ended - added))
    samples[f"{what.partition(',')[0]}: links, rules, addresses left"][side.name].append(left)
    for pod in pods:
        namespaces.unpin_namespace(pod)


def _links(prefix: str) -> list[str]:
    listed = json.loads(subprocess.run(["ip", "-j", "link"], check=True, capture_output=True).stdout)
    return [link["ifname"] for link in listed if link["ifname"].startswith(prefix)]


def _masqueraded(results: list[dict[str, Any]]) -> int:
    """Lines of the whole rule set that name an address of these containers."""
    rules = subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout
    words = set(rules.replace("/", " ").replace(",", " ").split())
    return len(words & {ip["address"].partition("/")[0] for result in results for ip in result["ips"]})


def _preload(count: int) -> None:
    """Rules of somebody else, on the hooks that a port map and masquerading use."""
    rules = "".join(
        f"add rule ip other nat ip daddr 198.18.{n >> 8 & 255}.{n & 255} tcp dport {n + 1} accept\n" for n in range(count)
    )
    text = f"add table ip other\nadd chain ip other nat {{ type nat hook postrouting priority 100; }}\n{rules}"
    subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)


@contextmanager
def _entered(node: Path) -> Iterator[None]:
    """This thread, and those that it starts, are on that node."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(there, syscalls.CLONE_NEWNET)
        yield
        syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)


def _processor_seconds() -> float:
    """Of this process and all that it has waited for."""
    return sum(os.times()[:4])


def _end_service(socket: str) -> None:
    """The one of this benchmark: its lock says which process it is. It is ended when its socket is gone."""
    deadline = time.monotonic() + 10
    while Path(socket).exists() and time.monotonic() < deadline:
        with suppress(ProcessLookupError):
            os.kill(int(Path(f"{socket}.lock").read_text()), signal.SIGTERM)
        time.sleep(0.01)


def _print(samples: Samples) -> None:
    names = ("trivet", "go")
    print(f"{'':62}" + "".join(f"{name + ' min / median / p95':>30}" for name in names) + f"{'ratio':>8}")
    for what, by_side in samples.items():
        row = f"{what:62}"
        for name in names:
            values = sorted(by_side.get(name, []))
            p95 = values[min(len(values) - 1, int(len(values) * 0.95))] if values else 0
            row += f"{values[0]:>10.2f} /{statistics.median(values):>8.2f} /{p95:>8.2f}" if values else " " * 30
        if all(by_side.get(name) for name in names) and statistics.median(by_side["go"]):
            row += f"{statistics.median(by_side['trivet']) / statistics.median(by_side['go']):>8.2f}"
        print(row)


if __name__ == "__main__":
    main()
