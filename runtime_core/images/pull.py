"""Pull: from a reference to layers that are committed and a configuration that is stored.

Blobs come in parallel; a layer is unpacked as soon as it and the layer below are there.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runtime_core.errors import (
    Aborted,
    DataLoss,
    DeadlineExceeded,
    InvalidArgument,
    ResourceExhausted,
    TrivetError,
    Unavailable,
    from_oserror,
)
from runtime_core.images import manifest
from runtime_core.images.auth_challenge import Credentials
from runtime_core.images.content import ContentStore, Hasher
from runtime_core.images.hosts import endpoints
from runtime_core.images.http_request import Response
from runtime_core.images.leases import Leases
from runtime_core.images.reference import Reference
from runtime_core.images.registry_client import Registry
from runtime_core.images.transfer_rate import TransferLimits
from runtime_core.images.unpack import Layers
from runtime_core.interfaces.snapshotter import Snapshotter
from runtime_core.kernel import failpoint
from runtime_core.store.locks import Locks

_PARALLEL = 4
_CHUNK = 1 << 18
_MOST_CONFIG = 8 * 1024 * 1024
_MOST_NESTED = 2
#: to fetch one blob, and of these in a row that bring less than `_PROGRESS` bytes
_ATTEMPTS, _FRUITLESS = 20, 3
_PROGRESS = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """The result of a pull."""

    #: digest of what the reference named: an index or a manifest
    digest: str
    #: digest of the image configuration, which is the image's id
    config_digest: str
    config: dict[str, Any]
    chain_ids: tuple[str, ...]
    blobs: tuple[str, ...]
    size: int


class _TooMany(Exception):
    """More bytes than the descriptor says: another attempt would bring them again."""


class Puller:
    def __init__(
        self,
        content: ContentStore,
        layers: Layers,
        snapshotter: Snapshotter,
        leases: Leases,
        *,
        registry_directory: Path | None,
        limits: TransferLimits,
    ) -> None:
        self._content, self._layers, self._snapshotter, self._leases = content, layers, snapshotter, leases
        self._registry_directory, self._limits = registry_directory, limits
        self._fetching = Locks()

    def pull(self, reference: Reference, credentials: Credentials | None, approve: Callable[[str], None]) -> Pulled:
        """Everything or an error; what an interrupted pull has fetched is not fetched again.

        `approve` is asked with the digest before anything but manifests is fetched. What is brought is
        leased to the reference.
        """
        with _naming(reference):
            hosts = endpoints(self._registry_directory, reference.domain)
            registry = Registry(reference, hosts, credentials, self._limits)
            blobs, image_manifest = self._resolve(registry, reference)
            approve(blobs[0])
            blobs += [image_manifest.config.digest, *(layer.digest for layer in image_manifest.layers)]
            self._leases.hold(str(reference), blobs)
            config = self._config(registry, image_manifest)
            chains = manifest.chain_ids(config["rootfs"]["diff_ids"])
            self._leases.hold(str(reference), (), chains)
            self._fetch_layers(registry, image_manifest.layers, config["rootfs"]["diff_ids"], chains)
            return Pulled(
                digest=blobs[0],
                config_digest=image_manifest.config.digest,
                config=config,
                chain_ids=tuple(chains),
                blobs=tuple(blobs),
                size=image_manifest.config.size + sum(layer.size for layer in image_manifest.layers),
            )

    def _resolve(self, registry: Registry, reference: Reference) -> tuple[list[str], manifest.Manifest]:
        """(digests from what the reference names down to the manifest, the manifest)."""
        target, size, blobs = reference.target, None, []
        for _level in range(_MOST_NESTED + 1):
            body, media_type = registry.manifest(target)
            digest = target if ":" in target else f"sha256:{hashlib.sha256(body).hexdigest()}"
            if size is not None and len(body) != size:
                raise DataLoss(f"manifest {digest} has {len(body)} bytes, its descriptor says {size}")
            self._lease_and_store(reference, digest, body)
            blobs.append(digest)
            parsed = manifest.parse(body, media_type)
            if isinstance(parsed, manifest.Manifest):
                return blobs, parsed
            chosen = manifest.choose(parsed)
            target, size = chosen.digest, chosen.size
        raise InvalidArgument(f"indexes are nested more than {_MOST_NESTED} deep")

    def _lease_and_store(self, reference: Reference, digest: str, body: bytes) -> None:
        self._leases.hold(str(reference), [digest])
        with self._fetching.hold(digest):
            if not self._content.has(digest):
                self._content.put(digest, body)

    def _config(self, registry: Registry, image_manifest: manifest.Manifest) -> dict[str, Any]:
        blob = image_manifest.config
        if blob.size > _MOST_CONFIG:
            raise ResourceExhausted(f"the configuration {blob.digest} has {blob.size} bytes, the limit is {_MOST_CONFIG}")
        self._fetch(registry, blob, threading.Event())
        try:
            body = self._content.read(blob.digest)
        except DataLoss:  # an old copy, damaged
            self._fetch(registry, blob, threading.Event())
            body = self._content.read(blob.digest)
        return manifest.parse_config(body, len(image_manifest.layers))

    def _fetch_layers(
        self, registry: Registry, layers: tuple[manifest.Descriptor, ...], diff_ids: list[str], chains: list[str]
    ) -> None:
        cancelled = threading.Event()
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="pull") as pool:
            fetched: list[Future[None] | None] = [
                None if self._snapshotter.has(chain) else pool.submit(self._fetch, registry, layer, cancelled)
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
                cancelled.set()
                for future in filter(None, fetched):
                    future.cancel()
                raise

    def _fetch(self, registry: Registry, blob: manifest.Descriptor, cancelled: threading.Event) -> None:
        fruitless = 0
        for attempt in range(1, _ATTEMPTS + 1):
            before = self._content.partial_size(blob.digest)
            try:
                self._fetch_once(registry, blob, cancelled)
            except _TooMany as error:
                raise DataLoss(str(error)) from None
            except (Unavailable, DeadlineExceeded, DataLoss):
                progress = self._content.partial_size(blob.digest) - before
                fruitless = 0 if progress >= _PROGRESS else fruitless + 1
                if fruitless == _FRUITLESS or attempt == _ATTEMPTS:
                    raise
                continue
            return

    def _fetch_once(self, registry: Registry, blob: manifest.Descriptor, cancelled: threading.Event) -> None:
        with self._fetching.hold(blob.digest):
            if not self._content.has(blob.digest):
                self._download(registry, blob, cancelled)

    def _download(self, registry: Registry, blob: manifest.Descriptor, cancelled: threading.Event) -> None:
        with self._content.ingest(blob.digest) as (file, hasher):
            have = file.tell()
            if have > blob.size:
                have = 0
            if have == blob.size and have:
                return
            response, offset = registry.blob(blob.digest, have)
            with response:
                if response.length is not None and offset + response.length != blob.size:
                    found = offset + response.length
                    kind = _TooMany if found > blob.size else DataLoss
                    raise kind(f"blob {blob.digest} has {found} bytes, its descriptor says {blob.size}")
                if offset != file.tell():
                    file.truncate(offset)
                    hasher.restart()
                _copy(response, file, hasher, blob, cancelled)


def _copy(response: Response, file: BinaryIO, hasher: Hasher, blob: manifest.Descriptor, cancelled: threading.Event) -> None:
    have = file.seek(0, 2)
    while chunk := response.read(_CHUNK):
        have += len(chunk)
        if have > blob.size:
            raise _TooMany(f"blob {blob.digest} is larger than the {blob.size} bytes of its descriptor")
        if cancelled.is_set():
            raise Aborted(f"blob {blob.digest}: another part of the image has failed")
        file.write(chunk)
        hasher.update(chunk)
        failpoint.hit("pull.received")
    if have < blob.size:
        raise Unavailable(f"blob {blob.digest} ended after {have} of {blob.size} bytes")


@contextmanager
def _naming(reference: Reference) -> Iterator[None]:
    """Whatever goes wrong, the message begins with the image."""
    try:
        yield
    except TrivetError as error:
        raise type(error)(f"{reference}: {error}") from error
    except OSError as error:
        raise from_oserror(error, str(reference)) from error
