"""Entering a network namespace for a moment, in this thread alone. Cold."""

from __future__ import annotations

import os
from contextlib import contextmanager

from runtime_core.errors import NotFound
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class NamespaceMissing(NotFound):
    """Nothing can have been made in it: the one failure for which a runtime need not call DEL (CNI specification, 5)."""

    cni_code = 3


def open_namespace(path: str) -> int:
    """A descriptor of the namespace at `path`; NamespaceMissing when there is none (a plain file is none)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceMissing(f"CNI_NETNS: {path!r} cannot be opened: {error.strerror}") from error
    if not _is_namespace(descriptor):
        os.close(descriptor)
        raise NamespaceMissing(f"CNI_NETNS: {path!r} is not a network namespace")
    return descriptor


@contextmanager
def in_namespace(namespace: int) -> Iterator[None]:
    """Within the block this thread, and no other, is in `namespace`."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
    finally:
        os.close(home)


def is_own(namespace: int) -> bool:
    """Whether this thread is in `namespace`."""
    return os.path.samestat(os.fstat(namespace), os.stat("/proc/thread-self/ns/net"))


def _is_namespace(descriptor: int) -> bool:
    status, own = os.fstat(descriptor), os.stat("/proc/thread-self/ns/net")
    return status.st_dev == own.st_dev  # all namespaces live on the one nsfs
