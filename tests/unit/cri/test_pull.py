"""Which registry sees a pod's credentials."""

from __future__ import annotations

import pytest

from cri.api.v1 import api_pb2 as api
from cri.image.pull import credentials_for


@pytest.mark.parametrize(
    ("domain", "server", "shown"),
    [
        ("registry.example", "", True),
        ("registry.example", "registry.example", True),
        ("registry.example:5000", "https://registry.example:5000/v2/", True),
        ("registry.example:5000", "registry.example", False),
        ("other.example", "https://registry.example", False),
        ("docker.io", "https://index.docker.io/v1/", True),
        ("docker.io", "https://quay.example", False),
    ],
)
def test_credentials_are_for_the_server_that_they_name(domain: str, server: str, shown: bool) -> None:
    auth = api.AuthConfig(username="u", password="p", server_address=server)
    assert (credentials_for(domain, auth).username == "u") is shown
