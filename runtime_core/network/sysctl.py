"""Settings under /proc/sys/net of the network namespace in which the calling thread is. Cold."""

from __future__ import annotations

from runtime_core.errors import from_oserror


def refuse_router_advertisements(link: str) -> None:
    """On a link of the node that containers send to: one could make itself the node's router (CVE-2020-10749)."""
    write_sysctl(f"ipv6/conf/{link}/accept_ra", "0")


def write_sysctl(path: str, value: str) -> str:
    """The value before, "" where there is none. Written only when it differs: a write costs more than a read, and may
    not be allowed.

    What the kernel does not have (no IPv6 on this node) is left alone."""
    full = f"/proc/sys/net/{path}"
    try:
        with open(full, "rb", buffering=0) as file:
            before = file.read().decode().strip()
        if before == value:
            return before
        with open(full, "wb", buffering=0) as file:
            file.write(value.encode())
        return before
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise from_oserror(error, f"setting net/{path} to {value}") from error
