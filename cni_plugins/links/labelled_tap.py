"""A tap device with an SELinux label. Cold.

A device has the label of the process that makes it, and a process gets one when it starts: so ip(8) makes it.
"""

from __future__ import annotations

import os

from runtime_core.errors import FailedPrecondition, InvalidArgument

_ENFORCE = "/sys/fs/selinux/enforce"
_NEXT_LABEL = "/proc/thread-self/attr/exec"


def add_labelled_tap(name: str, label: str, *, multi_queue: bool, owner: int | None, group: int | None) -> None:
    """In the network namespace of this thread."""
    import subprocess  # here: it is dear, and few ask for a label

    check_label()
    command = ["ip", "tuntap", "add", "mode", "tap", "name", name]
    command += ["multi_queue"] if multi_queue else []
    command += ["user", str(owner)] if owner is not None else []
    command += ["group", str(group)] if group is not None else []
    _set_next_label(label.encode(), label)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FailedPrecondition("selinuxContext: it needs the program ip (iproute2)") from None
    finally:
        _set_next_label(b"\n", label)
    if done.returncode != 0:
        raise FailedPrecondition(f"selinuxContext: making tap {name} with {label!r}: {done.stderr.strip()}")


def check_label() -> None:
    """FailedPrecondition when SELinux is not enabled on this node."""
    if not os.path.exists(_ENFORCE):
        raise FailedPrecondition("selinuxContext: SELinux is not enabled on this node")


def _set_next_label(value: bytes, label: str) -> None:
    try:
        with open(_NEXT_LABEL, "wb", buffering=0) as file:
            file.write(value)
    except OSError as error:
        raise InvalidArgument(f"selinuxContext: {label!r} is refused: {error.strerror}") from error
