"""Namespaces for contract suites: a network that plays the node's, one for each pod, and mounts of one's own."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime_core.kernel import netlink, syscalls
from runtime_core.network.links import Links
from runtime_core.network.namespace import in_namespace, open_namespace

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_CLONE_FS = 0x200


@contextmanager
def mount_namespace() -> Iterator[None]:
    """Within the block nobody else sees what this thread, and the threads that it starts, mount; nor do they see what
    other programs mount and unmount."""
    home = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    here = os.getcwd()
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    try:
        yield
    finally:
        syscalls.unshare(_CLONE_FS)  # setns wants a root directory that no thread shares, ended ones included
        syscalls.setns(home, syscalls.CLONE_NEWNS)
        os.close(home)
        os.chdir(here)


@contextmanager
def node_namespace() -> Iterator[None]:
    """Within the block this thread, and the threads that it starts, are on a node without any network."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            _loopback_up()
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)


def pin_namespace(path: Path) -> None:
    """A new network namespace under the name `path`, as a monitor makes it: lo is up."""
    path.touch(0o444, exist_ok=False)
    maker = threading.Thread(target=_pin, args=(str(path),))
    maker.start()
    maker.join()


def unpin_namespace(path: Path) -> None:
    """Idempotent."""
    if path.exists():
        if os.path.ismount(path):
            syscalls.umount2(str(path), syscalls.MNT_DETACH)
        path.unlink()


@contextmanager
def in_pinned_namespace(path: str) -> Iterator[Links]:
    """Within the block this thread is in the namespace `path`; its links are given."""
    descriptor = open_namespace(path)
    try:
        with in_namespace(descriptor), netlink.Socket() as sock:
            yield Links(sock)
    finally:
        os.close(descriptor)


def addresses(path: str) -> set[str]:
    """Addresses of all links that are up, without lo and without link-local ones."""
    with in_pinned_namespace(path) as links:
        found = {a for link in links.all() if link.is_up and link.name != "lo" for a in links.addresses(link.index)}
    return {a.partition("/")[0] for a in found if not a.startswith("fe80:")}


def default_routes(path: str) -> set[int]:
    """IP versions that have a default route (proc(5), net/route and net/ipv6_route)."""
    found = set()
    with in_pinned_namespace(path):
        for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
            if line.split()[1] == "0" * 8:
                found.add(4)
        if os.path.exists("/proc/thread-self/net/ipv6_route"):
            for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines():
                fields = line.split()
                if fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
                    found.add(6)
    return found


def _pin(path: str) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    _loopback_up()
    syscalls.mount("/proc/thread-self/ns/net", path, "", syscalls.MS_BIND)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", _IFF_UP))
