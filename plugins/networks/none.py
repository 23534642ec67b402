"""trivet.network none: pods have loopback and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtime_core.errors import TrivetError
from runtime_core.interfaces.network import AttachedNetwork, NetworkStatus, PodNetwork


class NoNetwork:
    """See runtime_core.interfaces.network."""

    def __init__(self, **_settings: object) -> None:
        """Takes whatever the others take."""

    def attach(self, pod: PodNetwork) -> AttachedNetwork:
        return AttachedNetwork(addresses=())

    def detach(self, pod: PodNetwork) -> None:
        """Nothing was attached."""

    def check(self, pods: Sequence[PodNetwork], report_problem: Callable[[str, TrivetError], None]) -> None:
        """Nothing can be wrong."""

    def collect_garbage(self, pods: Sequence[PodNetwork]) -> None:
        """Nothing is kept."""

    def status(self) -> NetworkStatus:
        return NetworkStatus(is_ready=True)

    def close(self) -> None:
        """Nothing is open."""
