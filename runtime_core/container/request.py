"""What `create` is asked for. Cold."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.interfaces.cgroup_manager import CgroupManager


class CreateRequest:
    """One container to create: its OCI spec, its root mount, its stdio, its cgroup.

    The cgroup is the container's alone: it is made with it, and destroyed when that fails.
    `namespaces` are descriptors to join, by OCI type; they stand for a path in linux.namespaces.
    """

    __slots__ = ("cgroup_path", "cgroups", "id", "namespaces", "root", "seccomp", "spec", "stdio")

    def __init__(
        self,
        *,
        id: str,
        spec: dict[str, Any],
        root: dict[str, Any],
        stdio: tuple[int, int, int],
        seccomp: bytes,
        cgroups: CgroupManager,
        cgroup_path: str,
        namespaces: dict[str, int] | None = None,
    ) -> None:
        self.id, self.spec, self.root, self.stdio = id, spec, root, stdio
        self.seccomp, self.cgroups, self.cgroup_path = seccomp, cgroups, cgroup_path
        self.namespaces = namespaces or {}
