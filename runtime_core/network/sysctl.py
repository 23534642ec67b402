"""Settings under /proc/sys/net of the network namespace in which the calling thread is. Cold."""

from __future__ import annotations

from runtime_core.errors import from_oserror


def write_sysctl(path: str, value: str) -> None:
    """Written only when it differs: a write costs more than a read, and may not be allowed.

    What the kernel does not have (no IPv6 on this node) is left alone."""
    full = f"/proc/sys/net/{path}"
    try:
        with open(full, "rb", buffering=0) as file:
            if file.read().strip() == value.encode():
                return
        with open(full, "wb", buffering=0) as file:
            file.write(value.encode())
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_oserror(error, f"setting net/{path} to {value}") from error
