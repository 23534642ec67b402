"""A call as a plugin sees it: what callers write differently means the same."""

from __future__ import annotations

from typing import Any

import pytest

from runtime_core.cni.request import Request, previous_result
from runtime_core.errors import InvalidArgument


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (
            {"portMappings": [{"HostPort": 80, "ContainerPort": 8080, "Protocol": "tcp", "HostIP": ""}]},
            {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": ""}]},
        ),
        ({"bandwidth": {"IngressRate": 1, "EgressBurst": 2}}, {"bandwidth": {"ingressRate": 1, "egressBurst": 2}}),
        (
            {"bandwidth": {"UnshapedSubnets": ["10.0.0.0/8"], "ShapedSubnets": []}},
            {"bandwidth": {"unshapedSubnets": ["10.0.0.0/8"], "shapedSubnets": []}},
        ),
        ({"ipRanges": [[{"Subnet": "10.0.0.0/8", "RangeStart": "x"}]]}, {"ipRanges": [[{"subnet": "10.0.0.0/8", "rangeStart": "x"}]]}),
        ({"portMappings": None, "mac": "X", "aliases": {"HostPort": ["a"]}}, {"portMappings": None, "mac": "X", "aliases": {"HostPort": ["a"]}}),
        ({"portMappings": ["Odd", 7]}, {"portMappings": ["Odd", 7]}),
        ("odd", "odd"),
    ],
)  # fmt: skip
def test_what_containerd_gives_by_capability_is_understood(given: Any, seen: Any) -> None:
    """It writes the names of Go's fields; other people's names stay as they are, and what was given is not changed."""
    config = {"name": "net", "runtimeConfig": given}
    before = str(config)
    assert Request(config=config).config["runtimeConfig"] == seen
    assert str(config) == before


def test_a_malformed_previous_result_hinders_all_but_del() -> None:
    """What was made can be taken down."""
    config = {"prevResult": {"cniVersion": "9"}}
    with pytest.raises(InvalidArgument, match="prevResult"):
        previous_result(config, "CHECK")
    assert previous_result(config, "DEL") is None
    assert previous_result({}, "CHECK") is None


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
@pytest.mark.parametrize("value", ["", 0, False, {}, "c1", [1], [{}], [{"containerID": "c1"}]])
def test_what_is_no_list_of_attachments_keeps_none_from_being_kept(key: str, value: object) -> None:
    """An empty string is no empty list: GC would take everything away."""
    request = Request(config={key: value}, container_id="", netns="", interface="", args={}, path="")
    with pytest.raises(InvalidArgument, match="valid-attachments"):
        request.valid_attachments()


def test_no_attachment_is_valid_when_the_list_is_empty_or_null() -> None:
    """Go writes an empty list as null; without the key nothing is said."""
    for config, valid in (({"cni.dev/valid-attachments": []}, set()), ({"cni.dev/valid-attachments": None}, set()), ({}, None)):
        request = Request(config=config, container_id="", netns="", interface="", args={}, path="")
        assert request.valid_attachments() == valid
