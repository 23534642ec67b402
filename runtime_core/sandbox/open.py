"""Opens a pod: acquires what it needs, and releases all of it, newest first, on any failure."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from runtime_core.errors import from_oserror
from runtime_core.interfaces.network import AttachedNetwork
from runtime_core.kernel import failpoint, syscalls
from runtime_core.sandbox.node import Node, network_reference, pod_reference
from runtime_core.sandbox.records import SandboxRecord, SandboxSpec, pod_network, pod_spec

_SHM_BYTES = 64 * 1024 * 1024


def open_sandbox(node: Node, spec: SandboxSpec) -> SandboxRecord:
    """Ledger, cgroup, monitor with the namespaces, network, record: in this order."""
    directory = node.directories.pod(spec.id)
    netns = node.directories.netns(spec.id) if spec.own_network else ""
    pod, network = pod_spec(spec, directory, netns), pod_network(spec, netns)
    runtime = node.runtime(spec.handler)
    with node.opening(spec) as missing, ExitStack() as undo:
        # What we make, we remove.
        things = [("cgroup-parent", path) for path in dict.fromkeys((*missing[:1], *missing[-1:]))]
        things.append(("pod", pod_reference(pod, spec.handler)))
        if spec.own_network:
            things.append(("network", network_reference(network)))
        node.ledger.guard(undo, spec.id, *things)
        failpoint.hit("open.ledger")
        node.cgroups.create(spec.cgroup_parent, {})
        _write_files(spec, directory)
        failpoint.hit("open.directory")
        monitor_pid, init_pid = runtime.open_pod(pod)
        failpoint.hit("open.monitor")
        attached = node.network.attach(network) if spec.own_network else AttachedNetwork(addresses=())
        failpoint.hit("open.network")
        record = SandboxRecord(
            spec=spec,
            is_ready=True,
            created_at=time.time_ns(),
            directory=directory,
            netns_path=netns,
            monitor_pid=monitor_pid,
            init_pid=init_pid,
            addresses=list(attached.addresses),
            network=dict(attached.result),
        )
        node.pod_opened(record)
        undo.pop_all()
    failpoint.hit("open.recorded")
    return record


def _write_files(spec: SandboxSpec, directory: str) -> None:
    """resolv.conf, hostname, hosts, and /dev/shm of the pod."""
    base = Path(directory)
    try:
        for part in (base, base / "rootfs", base / "shm"):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        (base / "hostname").write_text(f"{spec.hostname or os.uname().nodename}\n")
        (base / "hosts").write_text(_hosts(spec))
        _write_resolv_conf(spec, base / "resolv.conf")
        for name in ("hostname", "hosts", "resolv.conf"):
            (base / name).chmod(0o644)
            os.chown(base / name, *spec.root_on_host())
        if spec.own_ipc:
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
            uid, gid = spec.root_on_host()
            syscalls.mount("shm", str(base / "shm"), "tmpfs", flags, f"mode=1777,size={_SHM_BYTES},uid={uid},gid={gid}")
    except OSError as error:
        raise from_oserror(error, f"preparing {directory}") from error


def _hosts(spec: SandboxSpec) -> str:
    if not spec.own_network:
        return Path("/etc/hosts").read_text() if os.path.exists("/etc/hosts") else ""
    return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def _write_resolv_conf(spec: SandboxSpec, path: Path) -> None:
    if not spec.dns:
        if os.path.exists("/etc/resolv.conf"):
            shutil.copyfile("/etc/resolv.conf", path)
        else:
            path.touch()
        return
    lines = [f"nameserver {server}" for server in spec.dns.get("servers", [])]
    if "searches" in spec.dns:
        lines.insert(0, f"search {' '.join(spec.dns['searches'])}")
    if "options" in spec.dns:
        lines.append(f"options {' '.join(spec.dns['options'])}")
    path.write_text("".join(f"{line}\n" for line in lines))
