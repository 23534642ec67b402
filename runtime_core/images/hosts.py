"""Where a registry is really reached: mirrors from a directory in containerd's hosts.toml layout."""

from __future__ import annotations

import ipaddress
import ssl
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from runtime_core.errors import InvalidArgument

_KNOWN = {
    "capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout",
}  # fmt: skip


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
            context.load_verify_locations(path)
        for certificate, key in self.client:
            context.load_cert_chain(certificate, key or None)
        if self.skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}") from error
    found = [_endpoint(path, url, table, domain) for url, table in (document.get("host") or {}).items()]
    if "server" in document:
        server = {key: value for key, value in document.items() if key not in ("host", "server")}
        found.append(_endpoint(path, document["server"], server, ""))
    else:
        found.append(own)
    return found


def _endpoint(path: Path, url: str, table: dict[str, object], namespace: str) -> Endpoint:
    unknown = set(table) - _KNOWN
    if unknown:
        raise InvalidArgument(f"{path}: host {url!r} has unknown keys {', '.join(sorted(unknown))}")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidArgument(f"{path}: {url!r} is not an http or https URL")
    prefix = parts.path.rstrip("/")
    if not table.get("override_path"):
        prefix = prefix if prefix.endswith("/v2") else f"{prefix}/v2"
    return Endpoint(
        scheme=parts.scheme,
        host=parts.netloc,
        prefix=prefix,
        capabilities=tuple(_strings(table.get("capabilities", ["pull", "resolve"]))),
        skip_verify=bool(table.get("skip_verify")),
        ca=tuple(str(path.parent / item) for item in _strings(table.get("ca", []))),
        client=tuple(_client(path, item) for item in _items(table.get("client", []))),
        headers={key: ", ".join(_strings(value)) for key, value in _table(table.get("header")).items()},
        dial_timeout=_seconds(path, table.get("dial_timeout", "30s")),
        namespace=namespace,
    )


def _items(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _strings(value: object) -> list[str]:
    return [str(item) for item in _items(value)]


def _table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _client(path: Path, item: object) -> tuple[str, str]:
    pair = [str(path.parent / part) for part in _strings(item)]
    return pair[0], pair[1] if len(pair) > 1 else ""


def _seconds(path: Path, value: object) -> float:
    text = str(value).removesuffix("s")
    try:
        return float(text)
    except ValueError:
        raise InvalidArgument(f"{path}: dial_timeout {value!r} is not a number of seconds") from None


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
