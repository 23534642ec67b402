"""CSI's protocol: every RPC of 1.13 is known and served, and the protocol's options are what the driver goes by."""

from __future__ import annotations

from csi_driver.api.registration import registration_pb2 as registration
from csi_driver.api.v1 import csi_pb2 as csi
from csi_driver.daemon.server import SERVICES

#: services of CSI 1.13 and how many RPCs they have
_RPCS = {"Identity": 3, "Controller": 17, "GroupController": 4, "SnapshotMetadata": 2, "Node": 10}


def test_the_interface_has_its_36_rpcs() -> None:
    services = csi.DESCRIPTOR.services_by_name
    assert {name: len(service.methods) for name, service in services.items()} == _RPCS


def test_every_rpc_is_served() -> None:
    """By a function of its own: none is left to UNIMPLEMENTED but by the back end's features."""
    for name, service in csi.DESCRIPTOR.services_by_name.items():
        assert set(SERVICES[name]) == {method.name for method in service.methods}
    functions = [function for functions in SERVICES.values() for function in functions.values()]
    assert len(set(functions)) == len(functions)


def test_only_the_metadata_services_stream() -> None:
    streaming = {
        method.name
        for service in csi.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.server_streaming
    }
    assert streaming == set(SERVICES["SnapshotMetadata"])


def test_every_field_that_holds_secrets_is_marked() -> None:
    marked = {
        (message.name, field.name)
        for message in csi.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.GetOptions().Extensions[csi.csi_secret]
    }
    named = {
        (message.name, field.name)
        for message in csi.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
        if field.name == "secrets"
    }
    assert marked == named and len(marked) > 15


def test_the_kubelets_registration_has_its_two_rpcs() -> None:
    service = registration.DESCRIPTOR.services_by_name["Registration"]
    assert {method.name for method in service.methods} == {"GetInfo", "NotifyRegistrationStatus"}
    assert service.full_name == "pluginregistration.Registration"
