"""All attachments of the daemon: how a request changes them, and what time does to them. Cold."""

from __future__ import annotations

import sys

from cni_plugins.ipam.dhcp import attachment as attachments
from cni_plugins.ipam.dhcp import client as states
from cni_plugins.ipam.dhcp import options
from cni_plugins.ipam.dhcp.attachment import clock
from cni_plugins.ipam.dhcp.exchange import namespace_identity
from cni_plugins.ipam.dhcp.packet import Malformed
from runtime_core.errors import Aborted, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, TrivetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cni_plugins.ipam.dhcp.attachment import Attachment
    from cni_plugins.ipam.dhcp.client import Timing
    from cni_plugins.ipam.dhcp.lease_files import LeaseFiles

    Name = tuple[str, str, str]


class Leases:
    def __init__(self, files: LeaseFiles, timing: Timing, host_prefix: str, *, is_broadcast: bool) -> None:
        self._files, self._timing, self._host_prefix, self._is_broadcast = files, timing, host_prefix, is_broadcast
        self._all: dict[Name, Attachment] = {}
        for record in files.load():
            try:
                attachment = attachments.restore_attachment(record, timing, is_broadcast=is_broadcast)
            except (KeyError, TypeError, ValueError) as error:
                _log(f"a record is left out: {type(error).__name__}: {error}")
                continue
            self._all[attachment.name] = attachment
            _log(f"{'/'.join(attachment.name)}: taken over from an earlier daemon")

    def all(self) -> list[Attachment]:
        """Every attachment that the daemon has, acquired or not."""
        return list(self._all.values())

    def serve(self, request: dict[str, Any]) -> dict[str, Any] | Attachment:
        """The answer, or the attachment whose address is waited for."""
        name: Name = (request["network"], request["container_id"], request["interface"])
        verb = request["verb"]
        if verb == "ADD":
            return self._add(name, request)
        if verb == "CHECK":
            return self._check(name)
        if verb == "DEL":
            self._remove(name)
        elif verb == "GC":
            self._collect(name[0], request.get("valid"))
        elif verb != "STATUS":
            raise InvalidArgument(f"verb: {verb!r} is unknown")
        return {}

    def finish_add(self, attachment: Attachment, ipam: dict[str, Any]) -> dict[str, Any]:
        """The result of an attachment that acquires no more. Where that failed, nothing is left of it."""
        attachment.is_unsettled = False
        if attachment.state != states.BOUND:
            self._forget(attachment)
            if attachment.state != states.FAILED:
                raise Aborted(f"the request for {attachment.name[2]} of container {attachment.name[1]} was cut short")
            raise DeadlineExceeded(f"no DHCP server answered on {attachment.name[2]} within {self._timing.give_up:g} s")
        try:
            attachment.read_result(ipam)
            self._files.save(attachment.record())
        except (Malformed, TrivetError) as error:
            attachment.release()
            self._forget(attachment)
            if isinstance(error, Malformed):
                raise FailedPrecondition(f"the DHCP server's answer is of no use: {error}") from None
            raise
        attachment.close()
        _log(f"{'/'.join(attachment.name)}: {attachment.result['ips'][0]['address']}")
        return attachment.result

    def refresh_all(self) -> None:
        """Leases that were renewed or lost meanwhile."""
        for attachment in self.all():
            if not attachment.is_unsettled or attachment.state not in (states.BOUND, states.LOST):
                continue
            attachment.is_unsettled = False
            attachment.close()
            try:
                if attachment.state == states.LOST:
                    attachment.take_down()
                    _log(f"{'/'.join(attachment.name)}: the lease is lost, the link is down")
                else:
                    _log(f"{'/'.join(attachment.name)}: renewed")
                self._files.save(attachment.record())
            except (TrivetError, OSError) as error:
                _log(f"{'/'.join(attachment.name)}: {error}")

    def abandon(self, attachment: Attachment) -> None:
        """Nobody waits for it any more."""
        attachment.release()
        self._forget(attachment)

    def deadline(self) -> float | None:
        """When the next lease needs something, on the monotonic clock; None when none does."""
        return min(
            (attachment.client.deadline for attachment in self.all() if attachment.client.deadline is not None), default=None
        )

    def wake(self) -> None:
        now = clock()
        for attachment in self.all():
            if attachment.client.deadline is None or attachment.client.deadline > now:
                continue
            try:
                attachment.wake()
            except NotFound as error:
                _log(f"{'/'.join(attachment.name)}: given up: {error}")
                attachment.client.drop_lease()
                self._forget(attachment)

    def _add(self, name: Name, request: dict[str, Any]) -> dict[str, Any] | Attachment:
        ipam, args = request["ipam"], request["args"]
        options.priority(ipam)
        sent = options.message_options(ipam, args)
        netns = self._host_prefix + request["netns"]
        before = self._all.get(name)
        if before is not None and before.is_acquiring:
            raise Aborted(f"an address for {name[2]} of container {name[1]} is being asked for already")
        if before is not None:
            if before.state == states.BOUND and before.container_interface.identity == namespace_identity(netns):
                return before.result
            self._remove(name)
        attachment = attachments.new_attachment(name, netns, sent, self._timing, is_broadcast=self._is_broadcast)
        attachment.start()
        self._all[name] = attachment
        return attachment

    def _check(self, name: Name) -> dict[str, Any]:
        attachment = self._all.get(name)
        if attachment is None or attachment.is_acquiring:
            raise NotFound(f"no DHCP lease for {name[2]} of container {name[1]}")
        if attachment.state == states.LOST:
            raise FailedPrecondition(f"the DHCP lease for {name[2]} of container {name[1]} has expired")
        return attachment.result

    def _remove(self, name: Name) -> None:
        attachment = self._all.get(name)
        if attachment is not None:
            attachment.release()
            self._forget(attachment)
            _log(f"{'/'.join(name)}: released")

    def _collect(self, network: str, valid: Any) -> None:
        if not isinstance(valid, list):
            raise InvalidArgument("valid is not a list")
        kept = {(entry[0], entry[1]) for entry in valid if isinstance(entry, list) and len(entry) == 2}
        for name in [name for name in self._all if name[0] == network and name[1:] not in kept]:
            self._remove(name)

    def _forget(self, attachment: Attachment) -> None:
        attachment.close()
        self._files.remove(dict(zip(("network", "container_id", "interface"), attachment.name, strict=True)))
        if self._all.get(attachment.name) is attachment:
            del self._all[attachment.name]


def _log(text: str) -> None:
    print(f"dhcp: {text}", file=sys.stderr, flush=True)
