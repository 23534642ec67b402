"""Endpoints of a registry: mirrors from a directory in containerd's hosts.toml layout."""

from __future__ import annotations

import ipaddress
import re
import ssl
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from runtime_core.errors import InvalidArgument

_KNOWN = {
    "capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout",
}  # fmt: skip


#: push is of no use here, and says no harm
_CAPABILITIES = {"pull", "resolve", "push"}
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server to ask, in the order of preference."""

    scheme: str
    #: host[:port]
    host: str
    #: URL path before the repository name, "/v2" unless override_path says otherwise
    prefix: str = "/v2"
    capabilities: tuple[str, ...] = ("pull", "resolve")
    skip_verify: bool = False
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    dial_timeout: float = 30.0
    #: the registry that a mirror stands for, sent as ?ns= ; "" for the registry itself
    namespace: str = ""

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        for path in self.ca:
            with self._naming(path):
                context.load_verify_locations(path)
        for certificate, key in self.client:
            with self._naming(f"{certificate} {key}".strip()):
                context.load_cert_chain(certificate, key or None)
        if self.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @contextmanager
    def _naming(self, files: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidArgument(f"hosts.toml of {self.host}: {files}: {error}") from error


def endpoints(directory: Path | None, domain: str) -> list[Endpoint]:
    """Mirrors of `domain` in the order of its hosts.toml, then the registry itself.

    Raises InvalidArgument naming the file and the key.
    """
    own = _own(domain)
    if directory is None:
        return [own]
    for name in (domain, domain.replace(":", "_") + "_", "_default"):
        path = directory / name / "hosts.toml"
        if path.is_file():
            return _parse(path, domain, own)
    return [own]


def _own(domain: str) -> Endpoint:
    host = "registry-1.docker.io" if domain == "docker.io" else domain
    return Endpoint(scheme="http" if _is_loopback(host) else "https", host=host)


def _parse(path: Path, domain: str, own: Endpoint) -> list[Endpoint]:
    try:
        document = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidArgument(f"{path}: {error}") from error
    try:
        found = [_endpoint(path, url, table, domain) for url, table in _table(document.get("host", {}), "host").items()]
        if "server" not in document:
            return [*found, own]
        server = {key: value for key, value in document.items() if key not in ("host", "server")}
        return [*found, _endpoint(path, document["server"], server, "")]
    except InvalidArgument as error:
        raise InvalidArgument(f"{path}: {error}") from None


def _endpoint(path: Path, url: object, options: object, namespace: str) -> Endpoint:
    table = _table(options, f"host {url!r}")
    unknown = set(table) - _KNOWN
    if unknown:
        raise InvalidArgument(f"host {url!r} has unknown keys {', '.join(sorted(unknown))}")
    parts = _url(url)
    prefix = parts.path.rstrip("/")
    if not _truth(table, "override_path"):
        prefix = prefix if prefix.endswith("/v2") else f"{prefix}/v2"
    return Endpoint(
        scheme=parts.scheme,
        host=parts.netloc,
        prefix=prefix,
        capabilities=_capabilities(table.get("capabilities", ["pull", "resolve"])),
        skip_verify=_truth(table, "skip_verify"),
        ca=tuple(str(path.parent / item) for item in _strings(table.get("ca", []), "ca")),
        client=tuple(_client(path, item) for item in _items(table.get("client", []))),
        headers=dict(_header(key, value) for key, value in _table(table.get("header", {}), "header").items()),
        dial_timeout=_seconds(table.get("dial_timeout", "30s")),
        namespace=namespace,
    )


def _url(url: object) -> SplitResult:
    if not isinstance(url, str):
        raise InvalidArgument(f"server {url!r} is not a string")
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
    except ValueError:
        parts = SplitResult("", "", "", "", "")
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise InvalidArgument(f"{url!r} is not an http or https URL without a user")
    return parts


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _strings(value: object, key: str) -> list[str]:
    items = _items(value)
    if not all(isinstance(item, str) for item in items):
        raise InvalidArgument(f"{key} {value!r} is neither a string nor a list of strings")
    return [str(item) for item in items]


def _table(value: object, key: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidArgument(f"{key} is not a table")
    return value


def _truth(table: dict[str, object], key: str) -> bool:
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise InvalidArgument(f"{key} {value!r} is not true or false")
    return value


def _capabilities(value: object) -> tuple[str, ...]:
    found = tuple(_strings(value, "capabilities"))
    if not set(found) <= _CAPABILITIES:
        raise InvalidArgument(f"capabilities {value!r} are not of {', '.join(sorted(_CAPABILITIES))}")
    return found


def _client(path: Path, item: object) -> tuple[str, str]:
    pair = [str(path.parent / part) for part in _strings(item, "client")]
    if not 1 <= len(pair) <= 2:
        raise InvalidArgument(f"client {item!r} is not a certificate, or a certificate and its key")
    return pair[0], pair[1] if len(pair) > 1 else ""


def _header(name: str, value: object) -> tuple[str, str]:
    text = ", ".join(_strings(value, f"header {name}"))
    if not _HEADER_NAME.fullmatch(name) or not text.isprintable():
        raise InvalidArgument(f"header {name!r} cannot be one of HTTP")
    return name, text


def _seconds(value: object) -> float:
    text = str(value).removesuffix("s")
    if not _SECONDS.fullmatch(text) or not float(text):
        raise InvalidArgument(f"dial_timeout {value!r} is not a number of seconds")
    return float(text)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
