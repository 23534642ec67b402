"""trivet.network cni: the first configuration list of a directory, watched, its plugins called in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runtime_core.cni import result as cni_result
from runtime_core.cni.cache import Attachment, Cache
from runtime_core.cni.caller import Caller
from runtime_core.cni.conf import NetworkList
from runtime_core.cni.invoke import Plugins
from runtime_core.cni.readiness import Readiness
from runtime_core.cni.watch import WatchedDirectory
from runtime_core.errors import InvalidArgument, TrivetError, Unavailable
from runtime_core.interfaces.network import AttachedNetwork, NetworkStatus, PodNetwork
from runtime_core.registry import installed

_INTERFACE = "eth0"
_NOT_READY = "NetworkPluginNotReady"
#: A daemon that has just started says the truth, unless a plugin is slow.
_FIRST_STATUS_SECONDS = 1.0


class CniNetwork:
    """See runtime_core.interfaces.network. lo is the monitor's: it is up in every network namespace."""

    def __init__(self, *, conf_dir: Path, bin_dirs: Sequence[str], cache_dir: Path, packet_filter: str = "") -> None:
        modules = {driver.name: driver.entry for driver in installed("cni")}
        self._cache = Cache(cache_dir)
        self._cache.remove_half_written()
        self._caller = Caller(Plugins(bin_dirs, modules, packet_filter=packet_filter), self._cache)
        self._closing = threading.Event()
        self._readiness = Readiness(self._ask_status)
        self._directory = WatchedDirectory(conf_dir, self._changed)
        if self._directory.network is not None:
            self._readiness.refresh()
            self._readiness.wait_first(_FIRST_STATUS_SECONDS)

    def attach(self, pod: PodNetwork) -> AttachedNetwork:
        network = self._directory.network
        if network is None:
            raise Unavailable(f"network is not ready: {self._directory.problem}")
        for earlier in self._cache.of_container(pod.pod_id):
            if earlier.result is not None and earlier.netns == pod.netns_path:
                return _attached(cni_result.read(earlier.result))
            self._caller.delete(earlier)  # an ADD that was interrupted
        result = self._caller.add(network, self._attachment(pod, network))
        return _attached(result)

    def detach(self, pod: PodNetwork) -> None:
        for attachment in self._cache.of_container(pod.pod_id):
            self._caller.delete(attachment)

    def check(self, pods: Sequence[PodNetwork], report_problem: Callable[[str, TrivetError], None]) -> None:
        threading.Thread(target=self._check, args=(list(pods), report_problem), name="cni-check", daemon=True).start()

    def collect_garbage(self, pods: Sequence[PodNetwork]) -> None:
        known = {pod.pod_id for pod in pods}
        valid = [attachment for attachment in self._cache.all() if attachment.container_id in known]
        errors = self._caller.collect_garbage(self._directory.network, valid)
        if errors:
            raise TrivetError("; ".join(str(error) for error in errors))

    def status(self) -> NetworkStatus:
        if self._directory.network is None:
            return NetworkStatus(is_ready=False, reason=_NOT_READY, message=self._directory.problem)
        return self._readiness.latest()

    def close(self) -> None:
        self._closing.set()
        self._directory.close()
        self._readiness.close()

    def _changed(self) -> None:
        if self._directory.network is None:
            self._readiness.clear()
        else:
            self._readiness.refresh()

    def _ask_status(self) -> NetworkStatus:
        network = self._directory.network
        if network is None:
            return NetworkStatus(is_ready=False, reason=_NOT_READY, message=self._directory.problem)
        try:
            self._caller.status(network)
        except TrivetError as error:
            return NetworkStatus(is_ready=False, reason=_NOT_READY, message=str(error))
        return NetworkStatus(is_ready=True)

    def _check(self, pods: Sequence[PodNetwork], report_problem: Callable[[str, TrivetError], None]) -> None:
        for pod in pods:
            for attachment in self._cache.of_container(pod.pod_id):
                if self._closing.is_set():
                    return
                try:
                    self._caller.check(attachment)
                except TrivetError as error:
                    if self._cache.of_container(pod.pod_id):  # else it was detached meanwhile
                        report_problem(pod.pod_id, error)

    def _attachment(self, pod: PodNetwork, network: NetworkList) -> Attachment:
        capabilities: dict[str, Any] = {
            "portMappings": [dict(mapping) for mapping in pod.port_mappings],
            "bandwidth": dict(pod.bandwidth),
            "dns": {key: list(value) for key, value in pod.dns.items()},
            "cgroupPath": pod.cgroup_path,
        }
        return Attachment(
            container_id=pod.pod_id,
            interface=_INTERFACE,
            netns=pod.netns_path,
            network=network.name,
            config={
                "name": network.name,
                "cniVersion": network.version,
                "plugins": list(network.plugins),
                "disableCheck": network.disable_check,
                "disableGC": network.disable_gc,
            },
            args={
                "IgnoreUnknown": "1",
                "K8S_POD_NAMESPACE": _argument(pod.namespace, "namespace"),
                "K8S_POD_NAME": _argument(pod.name, "name"),
                "K8S_POD_INFRA_CONTAINER_ID": pod.pod_id,
                "K8S_POD_UID": _argument(pod.uid, "uid"),
            },
            capabilities={key: value for key, value in capabilities.items() if value},
        )


def _attached(result: dict[str, Any]) -> AttachedNetwork:
    return AttachedNetwork(addresses=cni_result.pod_addresses(result), result=result)


def _argument(value: str, field: str) -> str:
    """A value of CNI_ARGS, where a semicolon would begin another one and anything may read an equals sign its way."""
    if any(character in value for character in ";=\0"):
        raise InvalidArgument(f"metadata.{field}: {value!r} cannot stand in CNI_ARGS")
    return value
