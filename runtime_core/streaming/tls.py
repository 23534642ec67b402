"""TLS of the streaming server, where a certificate is configured."""

from __future__ import annotations

import ssl
from typing import Any


def context(settings: dict[str, Any]) -> ssl.SSLContext | None:
    """None without settings["certificate"]; OSError or ssl.SSLError when it or settings["key"] cannot be used."""
    if not settings["certificate"]:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.load_cert_chain(settings["certificate"], settings["key"])
    return made
