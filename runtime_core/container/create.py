"""Create: everything of a container but the exec of its program.

Must run in a single-threaded process (the monitor, or the OCI command): it forks.
"""

from __future__ import annotations

import re

from runtime_core.container import messages, parent
from runtime_core.container.parent import Init
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import failpoint, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.container.request import CreateRequest

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,255}")
#: A volume on a dead server blocks the init for ever, which must not block the monitor (containerd#13867).
_SECONDS = 60.0
#: What the specification has and this version does not do: better refused than left out in silence.
_MISSING = ("timeOffsets", "intelRdt", "personality", "mountLabel")
_MISSING_OF_PROCESS = ("scheduler", "ioPriority", "execCPUAffinity", "selinuxLabel")


def create(request: CreateRequest) -> Init:
    """Fork the container's init and let it set everything up.

    Raises what init reported, with its step and path; then nothing is left of the container.
    """
    _check(request)
    try:
        return _set_up(request)
    except BaseException:
        request.cgroups.destroy(request.cgroup_path)
        raise


def _set_up(request: CreateRequest) -> Init:
    child = parent.fork(request)
    failpoint.hit("container.create.forked")
    child.channel.settimeout(_SECONDS)
    try:
        kind, _payload, descriptors = messages.receive(child.channel)
        if kind != messages.CREATED:
            raise parent.died(request, "its init died while it was set up")
    except BaseException:
        child.channel.close()
        parent.kill_child(child.pid, child.pidfd)
        raise
    child.channel.settimeout(None)
    if descriptors:
        child.console = descriptors[0]
    return child


def _check(request: CreateRequest) -> None:
    if not _ID.fullmatch(request.id):
        raise InvalidArgument(f"container id {request.id!r} is not made of letters, digits, '_', '.' and '-'")
    path = request.cgroup_path
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidArgument(f"linux.cgroupsPath: {path!r} must be absolute, without '..'")
    linux = request.spec["linux"]
    seen = [entry["type"] for entry in linux.get("namespaces") or ()]
    for kind in seen:
        if kind not in namespaces.FLAGS:
            raise InvalidArgument(f"linux.namespaces: {kind!r} is not supported")
        if seen.count(kind) > 1:
            raise InvalidArgument(f"linux.namespaces: {kind!r} is there twice")
    if "mount" not in seen:
        raise InvalidArgument("linux.namespaces: a container needs a mount namespace")
    for owner, keys, values in (
        ("linux", _MISSING, linux),
        ("process", _MISSING_OF_PROCESS, request.spec["process"]),
    ):
        for key in keys:
            if values.get(key):
                raise InvalidArgument(f"{owner}.{key} is not supported")
