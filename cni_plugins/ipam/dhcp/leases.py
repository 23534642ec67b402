"""All attachments of the daemon: how a request changes them, and what time does to them. Cold."""

from __future__ import annotations

import sys

from cni_plugins.ipam.dhcp import attachment as attachments
from cni_plugins.ipam.dhcp import client as states
from cni_plugins.ipam.dhcp import options
from cni_plugins.ipam.dhcp.attachment import clock
from cni_plugins.ipam.dhcp.exchange import identity_of
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
                one = attachments.restored(record, timing, is_broadcast=is_broadcast)
            except (KeyError, TypeError, ValueError) as error:
                _log(f"a record is left out: {type(error).__name__}: {error}")
                continue
            self._all[one.name] = one
            _log(f"{'/'.join(one.name)}: taken over from an earlier daemon")

    def all(self) -> list[Attachment]:
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

    def settle(self, one: Attachment, ipam: dict[str, Any]) -> dict[str, Any]:
        """The result of an attachment that acquires no more. Where that failed, nothing is left of it."""
        one.is_unsettled = False
        if one.state != states.BOUND:
            self._forget(one)
            if one.state != states.FAILED:
                raise Aborted(f"the request for {one.name[2]} of container {one.name[1]} was cut short")
            raise DeadlineExceeded(f"no DHCP server answered on {one.name[2]} within {self._timing.give_up:g} s")
        try:
            one.read_result(ipam)
            self._files.save(one.record())
        except (Malformed, TrivetError) as error:
            one.release()
            self._forget(one)
            if isinstance(error, Malformed):
                raise FailedPrecondition(f"the DHCP server's answer is of no use: {error}") from None
            raise
        one.close()
        _log(f"{'/'.join(one.name)}: {one.result['ips'][0]['address']}")
        return one.result

    def settle_all(self) -> None:
        """Leases that were renewed or lost meanwhile."""
        for one in self.all():
            if not one.is_unsettled or one.state not in (states.BOUND, states.LOST):
                continue
            one.is_unsettled = False
            one.close()
            try:
                if one.state == states.LOST:
                    one.take_down()
                    _log(f"{'/'.join(one.name)}: the lease is lost, the link is down")
                else:
                    _log(f"{'/'.join(one.name)}: renewed")
                self._files.save(one.record())
            except (TrivetError, OSError) as error:
                _log(f"{'/'.join(one.name)}: {error}")

    def abandon(self, one: Attachment) -> None:
        """Nobody waits for it any more."""
        one.release()
        self._forget(one)

    def deadline(self) -> float | None:
        return min((one.client.deadline for one in self.all() if one.client.deadline is not None), default=None)

    def wake(self) -> None:
        now = clock()
        for one in self.all():
            if one.client.deadline is None or one.client.deadline > now:
                continue
            try:
                one.wake()
            except NotFound as error:
                _log(f"{'/'.join(one.name)}: given up: {error}")
                one.client.lose()
                self._forget(one)

    def _add(self, name: Name, request: dict[str, Any]) -> dict[str, Any] | Attachment:
        ipam, args = request["ipam"], request["args"]
        options.priority(ipam)
        sent = options.to_send(ipam, args)
        netns = self._host_prefix + request["netns"]
        before = self._all.get(name)
        if before is not None and before.is_acquiring:
            raise Aborted(f"an address for {name[2]} of container {name[1]} is being asked for already")
        if before is not None:
            if before.state == states.BOUND and before.place.identity == identity_of(netns):
                return before.result
            self._remove(name)
        one = attachments.new(name, netns, sent, self._timing, is_broadcast=self._is_broadcast)
        one.start()
        self._all[name] = one
        return one

    def _check(self, name: Name) -> dict[str, Any]:
        one = self._all.get(name)
        if one is None or one.is_acquiring:
            raise NotFound(f"no DHCP lease for {name[2]} of container {name[1]}")
        if one.state == states.LOST:
            raise FailedPrecondition(f"the DHCP lease for {name[2]} of container {name[1]} has expired")
        return one.result

    def _remove(self, name: Name) -> None:
        one = self._all.get(name)
        if one is not None:
            one.release()
            self._forget(one)
            _log(f"{'/'.join(name)}: released")

    def _collect(self, network: str, valid: Any) -> None:
        if not isinstance(valid, list):
            raise InvalidArgument("valid is not a list")
        kept = {(entry[0], entry[1]) for entry in valid if isinstance(entry, list) and len(entry) == 2}
        for name in [name for name in self._all if name[0] == network and name[1:] not in kept]:
            self._remove(name)

    def _forget(self, one: Attachment) -> None:
        one.close()
        self._files.remove(dict(zip(("network", "container_id", "interface"), one.name, strict=True)))
        if self._all.get(one.name) is one:
            del self._all[one.name]


def _log(text: str) -> None:
    print(f"dhcp: {text}", file=sys.stderr, flush=True)
