"""One attachment in the daemon: its client, its sockets while they are needed, and its record. Cold."""

from __future__ import annotations

import random
import time

from cni_plugins.ipam.dhcp import client as states
from cni_plugins.ipam.dhcp import options
from cni_plugins.ipam.dhcp.client import Client, Lease
from cni_plugins.ipam.dhcp.exchange import ContainerInterface, Exchange, namespace_identity, set_down, set_up
from cni_plugins.ipam.dhcp.packet import CLIENT_ID, Malformed
from runtime_core.errors import NotFound, TrivetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.ipam.dhcp.client import OutgoingMessage, Timing

_TIMES = ("renewal", "rebinding", "expiry")
_RANDOM = random.SystemRandom()


def clock() -> float:
    """Seconds since boot, sleep included: it means the same to the next daemon."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Attachment:
    """`result` is the CNI result once there is one."""

    def __init__(
        self, name: tuple[str, str, str], container_interface: ContainerInterface, client: Client, client_settings: dict[str, Any]
    ) -> None:
        """`name` is (network, container id, interface); `client_settings` what the client was made of, as record() has it."""
        self.name, self.container_interface, self.client = name, container_interface, client
        self.result: dict[str, Any] = {}
        self.exchange: Exchange | None = None
        #: something happened since its state was last looked at
        self.is_unsettled = False
        self._given = client_settings

    @property
    def state(self) -> str:
        """The client's state, one of those in client.py."""
        return self.client.state

    @property
    def is_acquiring(self) -> bool:
        return self.state in (states.INIT, states.SELECTING, states.REQUESTING)

    def start(self) -> None:
        """Open the sockets and send DHCPDISCOVER; NotFound without the interface."""
        self.exchange = Exchange(self.container_interface)
        self._send(self.client.start(clock()))

    def receive(self) -> None:
        self.is_unsettled = True
        for message in self.exchange.receive() if self.exchange else []:
            self._send(self.client.receive(message, clock()))

    def wake(self) -> None:
        """NotFound where the container's interface is gone."""
        self.is_unsettled = True
        try:
            self._open()
        except OSError:  # out of descriptors, say: what could not be sent is sent again
            pass
        self._send(self.client.wake(clock()))

    def release(self) -> None:
        """As far as the interface is still there: a server whose lease is not given back lets it expire."""
        messages = self.client.release()
        try:
            if messages:
                self._open()
                self._send(messages)
        except (TrivetError, OSError):
            pass  # see above
        self.close()

    def close(self) -> None:
        """Close the sockets, if they are open. Idempotent."""
        if self.exchange is not None:
            self.exchange.close()
            self.exchange = None

    def take_down(self) -> None:
        """The address may be used no longer."""
        try:
            set_down(self.container_interface)
        except NotFound:
            return

    def read_result(self, ipam: dict[str, Any]) -> None:
        """Malformed where the answer is of no use."""
        if self.client.ack is None:
            raise Malformed("no answer")
        self.result = options.cni_result(self.client.ack, ipam)

    def record(self) -> dict[str, Any]:
        network, container_id, interface = self.name
        lease = self.client.lease
        assert lease is not None and self.container_interface.identity is not None
        return {
            "network": network, "container_id": container_id, "interface": interface, "netns": self.container_interface.netns,
            "namespace": list(self.container_interface.identity), "is_lost": self.state == states.LOST, "result": self.result,
            "address": lease.address.hex(), "server": lease.server.hex(), **{key: getattr(lease, key) for key in _TIMES},
            **self._given,
        }  # fmt: skip

    def _open(self) -> None:
        if self.exchange is None:
            self.exchange = Exchange(self.container_interface)

    def _send(self, messages: list[OutgoingMessage]) -> None:
        for message in messages:
            if self.exchange is not None:
                self.exchange.send(message)


def new_attachment(
    name: tuple[str, str, str], netns: str, sent: dict[int, bytes], timing: Timing, *, is_broadcast: bool
) -> Attachment:
    """For a container that has no address; its link is up. NotFound without it."""
    network, container_id, interface = name
    container_interface = ContainerInterface(netns, interface, namespace_identity(netns))
    mac = set_up(container_interface)
    sent = {CLIENT_ID: options.client_id(container_id, network, interface), **sent}
    client_settings = {"mac": mac.hex(), "options": {str(code): value.hex() for code, value in sent.items()}}
    client = Client(mac, sent, timing, _RANDOM.random, is_broadcast=is_broadcast)
    return Attachment(name, container_interface, client, client_settings)


def restore_attachment(record: dict[str, Any], timing: Timing, *, is_broadcast: bool) -> Attachment:
    """From the record of an earlier daemon; KeyError, TypeError or ValueError for a record that is none."""
    sent = {int(code): bytes.fromhex(value) for code, value in record["options"].items()}
    client = Client(bytes.fromhex(record["mac"]), sent, timing, _RANDOM.random, is_broadcast=is_broadcast)
    times = [None if record[key] is None else float(record[key]) for key in _TIMES]
    client.resume(Lease(bytes.fromhex(record["address"]), bytes.fromhex(record["server"]), *times))
    if record["is_lost"]:
        client.drop_lease()
    device, inode = record["namespace"]
    container_interface = ContainerInterface(record["netns"], record["interface"], (int(device), int(inode)))
    client_settings = {"mac": record["mac"], "options": record["options"]}
    attachment = Attachment(
        (record["network"], record["container_id"], record["interface"]), container_interface, client, client_settings
    )
    attachment.result = record["result"]
    return attachment
