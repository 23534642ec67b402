"""What a refusal of rtnetlink(7) means to whoever wrote the configuration. Cold."""

from __future__ import annotations

import errno

from runtime_core.errors import FailedPrecondition, InvalidArgument, TrivetError, from_oserror

#: RFC 8200, section 5
LEAST_IPV6_MTU = 1280
_NO_WAY = "no network of the interface has that gateway"
_MEANINGS: dict[int, tuple[type[TrivetError], str]] = {
    # Rights that are missing are EPERM: this one has no other cause.
    errno.EACCES: (FailedPrecondition, "IPv6 is switched off there, by net.ipv6.conf.*.disable_ipv6"),
    errno.EOPNOTSUPP: (FailedPrecondition, "this kernel does without it; without IPv6 if that is an IPv6 address"),
    errno.EAFNOSUPPORT: (FailedPrecondition, "this kernel does without that family of addresses"),
    errno.EINVAL: (InvalidArgument, ""),
    errno.ERANGE: (InvalidArgument, ""),
    errno.EADDRNOTAVAIL: (InvalidArgument, "no interface can have that address"),
    errno.ENETUNREACH: (InvalidArgument, _NO_WAY),
    errno.EHOSTUNREACH: (InvalidArgument, _NO_WAY),
}


def describe_error(error: OSError, doing: str) -> TrivetError:
    """The error to raise for the kernel's `error`: the messages are made of checked values of the configuration, so that
    what they cannot be is the configuration's fault."""
    kind, meaning = _MEANINGS.get(error.errno or 0, (None, ""))
    if kind is None:
        return from_oserror(error, doing)
    return kind(f"{doing}: {error}{f': {meaning}' if meaning else ''}")


def check_mtu(link: str, mtu: int, addresses: list[str]) -> None:
    """InvalidArgument where a link is too small for the IPv6 ones of `addresses`, which the kernel says in no words."""
    needing = [address for address in addresses if ":" in address]
    if needing and mtu < LEAST_IPV6_MTU:
        raise InvalidArgument(f"mtu: {link} has {mtu}, and {needing[0]} needs {LEAST_IPV6_MTU} at the least, as all of IPv6")
