"""hosts.toml: where a registry is reached, and how each mistake is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import InvalidArgument
from runtime_core.images.hosts import Endpoint, endpoints


def _endpoints(directory: Path, domain: str, text: str, name: str = "") -> list[Endpoint]:
    path = directory / (name or domain) / "hosts.toml"
    path.parent.mkdir()
    path.write_text(text)
    return endpoints(directory, domain)


@pytest.mark.parametrize(
    ("domain", "scheme", "host"),
    [
        ("docker.io", "https", "registry-1.docker.io"),
        ("quay.io", "https", "quay.io"),
        ("localhost", "http", "localhost"),
        ("localhost:5000", "http", "localhost:5000"),
        ("127.0.0.1:5000", "http", "127.0.0.1:5000"),
        ("127.9.9.9", "http", "127.9.9.9"),
        ("[::1]:5000", "http", "[::1]:5000"),
        ("[::1]", "http", "[::1]"),
        ("localhost.example", "https", "localhost.example"),
        ("10.0.0.1:5000", "https", "10.0.0.1:5000"),
    ],
)
def test_without_configuration_a_registry_is_itself(domain: str, scheme: str, host: str, tmp_path: Path) -> None:
    """Without TLS on a loopback address alone."""
    for directory in (None, tmp_path):
        assert endpoints(directory, domain) == [Endpoint(scheme=scheme, host=host)]


def test_mirrors_come_first_in_their_order(tmp_path: Path) -> None:
    """And are told whom they stand for; the registry itself is last, as the file calls it."""
    text = """
        server = "https://real.example/sub"
        [host."https://b.example"]
        capabilities = ["pull"]
        [host."http://a.example:80/x"]
        override_path = true
        skip_verify = true
        dial_timeout = "3s"
        header = {x = ["1", "2"], y = "3"}
        ca = "ca.pem"
        client = [["c.pem", "k.pem"], ["both.pem"]]
    """
    first, second, server = _endpoints(tmp_path, "docker.io", text)
    assert first == Endpoint(scheme="https", host="b.example", capabilities=("pull",), namespace="docker.io")
    assert second == Endpoint(
        scheme="http",
        host="a.example:80",
        prefix="/x",
        skip_verify=True,
        dial_timeout=3.0,
        headers={"x": "1, 2", "y": "3"},
        ca=(f"{tmp_path}/docker.io/ca.pem",),
        client=((f"{tmp_path}/docker.io/c.pem", f"{tmp_path}/docker.io/k.pem"), (f"{tmp_path}/docker.io/both.pem", "")),
        namespace="docker.io",
    )
    assert server == Endpoint(scheme="https", host="real.example", prefix="/sub/v2")


@pytest.mark.parametrize("name", ["r.example:5000", "r.example_5000_", "_default"])
def test_the_directory_may_be_named_in_three_ways(name: str, tmp_path: Path) -> None:
    """With the port, with underscores for colons, or as that of all."""
    found = _endpoints(tmp_path, "r.example:5000", 'server = "http://other.example"', name)
    assert found == [Endpoint(scheme="http", host="other.example")]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("server = ", "Invalid value"),
        ("host = 5", "host is not a table"),
        ('[[host."https://x"]]', "host 'https://x' is not a table"),
        ("server = 5", "server 5 is not a string"),
        ('server = "ftp://x"', "'ftp://x' is not an http or https URL"),
        ('server = "https://"', "is not an http or https URL"),
        ('server = "https://u:p@x"', "is not an http or https URL"),
        ('server = "https://[::1"', "is not an http or https URL"),
        ('[host."https://x"]\ncolour = 1', "unknown keys colour"),
        ('[host."https://x"]\ndial_timeout = "soon"', "dial_timeout 'soon'"),
        ('[host."https://x"]\ndial_timeout = "-1s"', "dial_timeout '-1s'"),
        ('[host."https://x"]\ndial_timeout = "0s"', "dial_timeout '0s'"),
        ('[host."https://x"]\ncapabilities = ["pull", "fly"]', "capabilities"),
        ('[host."https://x"]\nskip_verify = "no"', "skip_verify"),
        ('[host."https://x"]\nheader = 5', "header is not a table"),
        ('[host."https://x"]\nheader = {"a b" = "c"}', "header"),
        ('[host."https://x"]\nheader = {a = "c\\nX-Evil: 1"}', "header"),
        ('[host."https://x"]\nclient = [[]]', "client"),
    ],
)
def test_a_mistake_is_named_with_its_file(text: str, complaint: str, tmp_path: Path) -> None:
    """And not found out in the middle of a pull."""
    with pytest.raises(InvalidArgument, match=rf"r\.example/hosts\.toml: .*{complaint}"):
        _endpoints(tmp_path, "r.example", text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Not UTF-8."""
    path = tmp_path / "r.example" / "hosts.toml"
    path.parent.mkdir()
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidArgument, match=str(path)):
        endpoints(tmp_path, "r.example")


@pytest.mark.parametrize(
    "files", [{"ca": ("/no/ca.pem",)}, {"client": (("/no/c.pem", "/no/k.pem"),)}, {"client": (("/no/c.pem", ""),)}]
)
def test_a_certificate_that_is_not_there_is_named(files: Any) -> None:
    """When it is needed."""
    with pytest.raises(InvalidArgument, match=r"hosts\.toml of r\.example: /no/"):
        Endpoint(scheme="https", host="r.example", **files).tls()
