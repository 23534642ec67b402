"""Pull: from a reference to layers that are committed and a configuration that is stored.

Blobs come in parallel; a layer is unpacked as soon as it and the layer below are there.
"""

from __future__ import annotations

import hashlib
import http.client
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime_core.errors import DataLoss, DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable
from runtime_core.images import manifest
from runtime_core.images.auth_challenge import Credentials
from runtime_core.images.content import ContentStore
from runtime_core.images.hosts import endpoints
from runtime_core.images.reference import Reference
from runtime_core.images.registry_client import Registry
from runtime_core.images.unpack import Layers
from runtime_core.interfaces.snapshotter import Snapshotter
from runtime_core.kernel import failpoint
from runtime_core.store.locks import Locks

_PARALLEL = 4
_CHUNK = 1 << 18
_MOST_CONFIG = 8 * 1024 * 1024
_MOST_NESTED = 2
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull has brought."""

    #: digest of what the reference named: an index or a manifest
    digest: str
    #: digest of the image configuration, which is the image's id
    config_digest: str
    config: dict[str, Any]
    chain_ids: tuple[str, ...]
    blobs: tuple[str, ...]
    size: int


class Puller:
    def __init__(self, content: ContentStore, layers: Layers, snapshotter: Snapshotter, registry_directory: Path | None) -> None:
        self._content, self._layers, self._snapshotter = content, layers, snapshotter
        self._registry_directory = registry_directory
        self._fetching = Locks()

    def pull(self, reference: Reference, credentials: Credentials | None) -> Pulled:
        """Everything or an error; what a broken pull has fetched, the next one does not fetch again."""
        registry = Registry(reference, endpoints(self._registry_directory, reference.domain), credentials)
        digest, image_manifest, blobs = self._resolve(registry, reference)
        config_blob = image_manifest.config
        if config_blob.size > _MOST_CONFIG:
            raise ResourceExhausted(f"{reference}: its configuration has {config_blob.size} bytes")
        self._fetch(registry, config_blob)
        config = manifest.parse_config(self._content.read(config_blob.digest), len(image_manifest.layers))
        chains = manifest.chain_ids(config["rootfs"]["diff_ids"])
        self._bring(registry, image_manifest.layers, config["rootfs"]["diff_ids"], chains)
        return Pulled(
            digest=digest,
            config_digest=config_blob.digest,
            config=config,
            chain_ids=tuple(chains),
            blobs=(*blobs, config_blob.digest, *(layer.digest for layer in image_manifest.layers)),
            size=config_blob.size + sum(layer.size for layer in image_manifest.layers),
        )

    def _resolve(self, registry: Registry, reference: Reference) -> tuple[str, manifest.Manifest, list[str]]:
        target, first, blobs = reference.target, "", []
        for _level in range(_MOST_NESTED + 1):
            body, media_type = registry.manifest(target)
            digest = target if ":" in target else f"sha256:{_sha256(body)}"
            self._content.put(digest, body)
            first = first or digest
            blobs.append(digest)
            parsed = manifest.parse(body, media_type)
            if isinstance(parsed, manifest.Manifest):
                return first, parsed, blobs
            target = manifest.choose(parsed).digest
        raise InvalidArgument(f"{reference}: indexes are nested more than {_MOST_NESTED} deep")

    def _bring(self, registry: Registry, layers: tuple[manifest.Descriptor, ...], diff_ids: list[str], chains: list[str]) -> None:
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="pull") as pool:
            fetched: list[Future[None] | None] = [
                None if self._snapshotter.has(chain) else pool.submit(self._fetch, registry, layer)
                for layer, chain in zip(layers, chains, strict=True)
            ]
            try:
                for number, future in enumerate(fetched):
                    if future is not None:
                        future.result()
                        failpoint.hit("pull.fetched")
                        blob = self._content.path(layers[number].digest)
                        self._layers.ensure(blob, diff_ids[number], chains[: number + 1])
            except BaseException:
                for future in filter(None, fetched):
                    future.cancel()
                raise

    def _fetch(self, registry: Registry, blob: manifest.Descriptor) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._fetch_once(registry, blob)
            except (Unavailable, DeadlineExceeded, DataLoss):
                if attempt == _ATTEMPTS:
                    raise
                continue
            return

    def _fetch_once(self, registry: Registry, blob: manifest.Descriptor) -> None:
        with self._fetching.hold(blob.digest):
            if not self._content.has(blob.digest):
                self._download(registry, blob)

    def _download(self, registry: Registry, blob: manifest.Descriptor) -> None:
        with self._content.ingest(blob.digest) as (file, hasher):
            have = file.tell()
            if have > blob.size:
                have = 0
            if have == blob.size and have:
                return
            with registry.blob(blob.digest, have) as (response, offset):
                if offset != file.tell():
                    file.truncate(offset)
                    hasher.restart()
                _copy(response, file, hasher, blob, offset)


def _copy(response: http.client.HTTPResponse, file: Any, hasher: Any, blob: manifest.Descriptor, have: int) -> None:
    while chunk := response.read(_CHUNK):
        have += len(chunk)
        if have > blob.size:
            raise DataLoss(f"blob {blob.digest} is larger than the {blob.size} bytes of its descriptor")
        file.write(chunk)
        hasher.update(chunk)
    if have < blob.size:
        raise Unavailable(f"blob {blob.digest} ended after {have} of {blob.size} bytes")


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
