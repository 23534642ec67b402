"""A node with a DHCP server, a pod and the dhcp daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from cni_plugins.ipam.dhcp import plugin
from runtime_core.cni.request import Request
from runtime_core.kernel import netlink
from runtime_core.network.links import Links
from runtime_core.network.namespace import open_namespace
from runtime_core.testing import namespaces
from tests.support.dhcp_server import DhcpServer

ROOT = Path(__file__).parents[3]
DAEMON = "import sys; sys.path.insert(0, sys.argv[1]); from cni_plugins.ipam.dhcp.plugin import command_line; sys.exit(command_line(sys.argv[2:]))"


class Node:
    """A node with the server's end of a veth, a pod with the other, and a daemon."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.pod = directory, directory / "pod"
        self.socket = directory / "dhcp.sock"
        namespaces.pin_namespace(self.pod)
        descriptor = open_namespace(str(self.pod))
        with netlink.Socket() as sock:
            links = Links(sock)
            links.add_veth("srv0", "eth0", namespace=descriptor)
            link = links.find("srv0")
            assert link is not None
            links.configure(link.index, ["10.9.0.1/24"], [])
        os.close(descriptor)
        self.server = DhcpServer("srv0")
        self.start()

    def start(self, *flags: str) -> None:
        flags = ("-socketpath", str(self.socket), "-timeout", "300ms", "-resendtimeout=4s", *flags)
        self.daemon = subprocess.Popen(
            [sys.executable, "-IS", "-c", DAEMON, str(ROOT), "daemon", *flags], stderr=subprocess.PIPE, text=True
        )
        self.wait_for("listens on")

    def wait_for(self, text: str) -> str:
        """The daemon's next line with this text."""
        assert self.daemon.stderr is not None
        while text not in (line := self.daemon.stderr.readline()):
            assert line, "the daemon has ended"
        return line

    def stop(self, number: int = signal.SIGTERM) -> str:
        """What it said."""
        self.daemon.send_signal(number)
        return self.daemon.communicate(timeout=20)[1]

    def close(self) -> None:
        if self.daemon.returncode is None:
            self.stop()
        self.server.close()
        namespaces.unpin_namespace(self.pod)

    def request(self, ipam: dict[str, Any] | None = None, container: str = "c1", **more: Any) -> Request:
        args, previous = more.pop("env", {}), more.pop("previous", None)
        interface, netns = more.pop("interface", "eth0"), more.pop("netns", str(self.pod))
        config = {
            "cniVersion": "1.1.0", "name": "net", "ipam": {"type": "dhcp", "daemonSocketPath": str(self.socket), **(ipam or {})},
            **more,
        }  # fmt: skip
        return Request(
            config=config, container_id=container, interface=interface, netns=netns, args=args, previous=previous,
        )  # fmt: skip

    def add(self, ipam: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """ADD, and what the plugin that delegates to us does then."""
        found = plugin.add(self.request(ipam, **more))
        with namespaces.in_pinned_namespace(str(self.pod)) as links:
            link = links.find("eth0")
            assert link is not None
            links.configure(link.index, [found["ips"][0]["address"]], [])
        return found

    def is_up(self) -> bool:
        with namespaces.in_pinned_namespace(str(self.pod)) as links:
            link = links.find("eth0")
            assert link is not None
            return link.is_up

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in Path(f"{self.socket}.leases").glob("*.json")]
