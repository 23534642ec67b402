"""Manifests, indexes and image configurations read strictly; pure.

Sources: OCI image specification (manifest.md, image-index.md, config.md), and Docker's
schema 2, which it grew from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import Any

from runtime_core.errors import DataLoss, InvalidArgument, NotFound, ResourceExhausted
from runtime_core.images import config_types
from runtime_core.images.reference import is_digest

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
#: anything else, an encrypted layer or an artifact's file, is not a file system
_LAYERS = re.compile(
    r"application/vnd\.(oci\.image\.layer(\.nondistributable)?\.v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs(\.foreign)?\.diff\.tar(\.gzip|\.zstd)?)"
)
_MACHINES = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "v8"), "riscv64": ("riscv64", "")}
_MOST_LAYERS = 500


@dataclass(frozen=True, slots=True)
class Descriptor:
    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]


def parse(body: bytes, content_type: str) -> Manifest | list[tuple[Descriptor, dict[str, str]]]:
    """A manifest, or the (descriptor, platform) pairs of an index. InvalidArgument for anything else."""
    document = _object(body, "manifest")
    media_type = document.get("mediaType") or content_type
    if content_type and document.get("mediaType") and content_type != document["mediaType"]:
        raise InvalidArgument(f"the registry calls a {document['mediaType']} a {content_type} (CVE-2021-41190)")
    if document.get("schemaVersion") == 1:
        raise InvalidArgument("the manifest is of schema 1, which is not supported")
    if "manifests" in document and ("layers" in document or "config" in document):
        raise InvalidArgument("a manifest that is an index as well is refused (CVE-2021-41190)")
    if media_type in _INDEXES:
        return [(_descriptor(entry), _platform(entry)) for entry in _list(document, "manifests")]
    if media_type in _MANIFESTS:
        layers = tuple(_descriptor(entry) for entry in _list(document, "layers"))
        if len(layers) > _MOST_LAYERS:
            raise ResourceExhausted(f"the manifest has {len(layers)} layers, the limit is {_MOST_LAYERS}")
        for layer in layers:
            if not _LAYERS.fullmatch(layer.media_type):
                raise InvalidArgument(f"layer {layer.digest} is of type {layer.media_type!r}, which is not supported")
        return Manifest(_descriptor(document.get("config")), layers)
    raise InvalidArgument(f"manifests of type {media_type!r} are not supported")


def choose(entries: list[tuple[Descriptor, dict[str, str]]], wanted: tuple[str, str] | None = None) -> Descriptor:
    """The entry for this machine's (architecture, variant); one that says no platform when nothing fits better."""
    architecture, variant = wanted or machine_platform()
    fitting = [
        (descriptor, platform.get("variant", ""))
        for descriptor, platform in entries
        if platform.get("os", "linux") == "linux" and platform.get("architecture") == architecture
    ]
    silent = [descriptor for descriptor, platform in entries if not platform and descriptor.media_type in _INDEXES + _MANIFESTS]
    same_variant = [descriptor for descriptor, offered in fitting if offered == variant]
    for descriptor in (*same_variant, *(descriptor for descriptor, _offered in fitting), *silent):
        return descriptor
    raise NotFound(f"the image has no variant for linux/{architecture}")


def machine_platform() -> tuple[str, str]:
    """(architecture, variant) of this machine, as images name them."""
    machine = os.uname().machine
    return _MACHINES.get(machine, (machine, ""))


def chain_ids(diff_ids: list[str]) -> list[str]:
    """Chain ID of each layer, base layer first (config.md, "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        if not chains:
            chains.append(diff_id)
        else:
            chains.append("sha256:" + hashlib.sha256(f"{chains[-1]} {diff_id}".encode()).hexdigest())
    return chains


def parse_config(body: bytes, layers: int) -> dict[str, Any]:
    """An image configuration with one valid diff ID for each layer, and of the specification's types throughout."""
    document = _object(body, "image configuration")
    rootfs = document.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(d, str) and is_digest(d) for d in diff_ids):
        raise InvalidArgument("the image configuration's rootfs.diff_ids is malformed")
    if len(diff_ids) != layers:
        raise InvalidArgument(f"the image configuration has {len(diff_ids)} diff IDs, the manifest {layers} layers")
    config_types.check(document)
    return document


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataLoss(f"the {what} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise DataLoss(f"the {what} is not a JSON object")
    return document


def _list(document: dict[str, Any], key: str) -> list[Any]:
    found = document.get(key)
    if not isinstance(found, list):
        raise InvalidArgument(f"the manifest's {key} is not a list")
    return found


def _platform(entry: dict[str, Any]) -> dict[str, str]:
    """What an index says that an entry is for; {} when it does not say."""
    platform = entry.get("platform") or {}
    if not isinstance(platform, dict):
        raise InvalidArgument(f"the index's entry {entry['digest']} has a platform that is not an object")
    for key in ("os", "architecture", "variant"):
        if not isinstance(platform.get(key) or "", str):
            raise InvalidArgument(f"the index's entry {entry['digest']} has a platform.{key} that is not a string")
    return {key: platform[key] for key in ("os", "architecture", "variant") if platform.get(key)}


def _descriptor(entry: Any) -> Descriptor:
    if not isinstance(entry, dict) or not is_digest(str(entry.get("digest"))):
        raise InvalidArgument("the manifest has a malformed descriptor")
    size = entry.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise InvalidArgument(f"the descriptor of {entry['digest']} has no valid size")
    return Descriptor(str(entry.get("mediaType", "")), entry["digest"], size)
