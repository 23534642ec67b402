"""The protocol: every RPC is known, and what is not there says so by its name."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.server import IMAGE, RUNTIME


def test_the_interface_has_its_43_rpcs() -> None:
    """37 of the runtime service and 6 of the image service, as of Kubernetes 1.37."""
    services = api.DESCRIPTOR.services_by_name
    assert len(services["RuntimeService"].methods) == 37
    assert len(services["ImageService"].methods) == 6


def test_every_handler_serves_an_rpc_that_exists() -> None:
    """A misspelt row would answer UNIMPLEMENTED for ever."""
    services = api.DESCRIPTOR.services_by_name
    assert set(RUNTIME) <= {method.name for method in services["RuntimeService"].methods}
    assert set(IMAGE) == {method.name for method in services["ImageService"].methods}


def test_what_a_kubelet_needs_to_run_pods_is_there() -> None:
    """Only checkpoints, events, metrics and pod resize are for later."""
    missing = {method.name for method in api.DESCRIPTOR.services_by_name["RuntimeService"].methods} - set(RUNTIME)
    assert missing == {
        "CheckpointContainer", "CheckpointPod", "RestorePod",
        "ListMetricDescriptors", "ListPodSandboxMetrics", "StreamPodSandboxMetrics", "UpdatePodSandboxResources",
    }  # fmt: skip
