"""Start a Python interpreter that no container can reach through /proc/PID/exe.

A process of ours that is inside a container's namespaces shows the host's interpreter
as its /proc/PID/exe, and root in the container could open that for writing
(CVE-2019-5736). So the launcher, whose forks enter containers, is executed from a
detached read-only mount of the interpreter's file; where the kernel refuses that,
from a sealed copy in a memfd.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys

from runtime_core.errors import from_oserror
from runtime_core.kernel import syscalls

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def protected_interpreter() -> int:
    """A descriptor of the running interpreter's program that can be executed and never written."""
    path = os.path.realpath(sys.executable)
    try:
        return _read_only_mount(path)
    except OSError:
        pass  # no CAP_SYS_ADMIN, or a kernel before 5.12
    try:
        return _sealed_copy(path)
    except OSError as error:
        raise from_oserror(error, f"protecting the interpreter {path} from containers") from error


def _read_only_mount(path: str) -> int:
    tree = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE)
    try:
        attributes = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
        syscalls.mount_setattr(tree, attr_set=attributes, propagation=syscalls.MS_PRIVATE)
    except OSError:
        os.close(tree)
        raise
    return tree


def _sealed_copy(path: str) -> int:
    copy = os.memfd_create("trivet-python", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(path, "rb") as source, open(copy, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target, 1 << 20)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    return copy
