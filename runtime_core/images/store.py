"""The images of this node: pulled, found by any of their names, removed, swept."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime_core.errors import Aborted, DeadlineExceeded, NotFound, Unavailable
from runtime_core.images.auth_challenge import Credentials
from runtime_core.images.content import ContentStore
from runtime_core.images.leases import Leases
from runtime_core.images.reference import Reference, is_digest, parse_reference
from runtime_core.images.unpack import Layers
from runtime_core.interfaces.image_verifier import ImageVerifier
from runtime_core.interfaces.snapshotter import Snapshotter, Usage
from runtime_core.kernel import failpoint
from runtime_core.launcher.client import Launcher
from runtime_core.store.database import Database
from runtime_core.store.locks import Locks
from runtime_core.store.records import Collection

if TYPE_CHECKING:
    from runtime_core.images.pull import Pulled, Puller

_SHORTEST_ID = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of this node with all its names."""

    #: digest of the configuration
    id: str
    #: registry/path:tag
    tags: tuple[str, ...] = ()
    #: registry/path@digest
    digests: tuple[str, ...] = ()
    #: base layer first
    chain_ids: tuple[str, ...] = ()
    #: manifests, configuration and layers in the content store
    blobs: tuple[str, ...] = ()
    #: compressed bytes
    size: int = 0
    #: the OCI image configuration, whole
    document: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The `config` object of the image configuration; {} when it has none."""
        return self.document.get("config") or {}


class Images:
    """The image store: records, blobs and layers."""

    def __init__(
        self,
        root: Path,
        database: Database,
        snapshotter: Snapshotter,
        launcher: Launcher,
        *,
        verifier: ImageVerifier,
        registry_directory: Path | None = None,
        silence: float = 60.0,
        deadline: float = 60.0,
        least_rate: int = 1024,
        largest_layer: int = 1 << 36,
    ) -> None:
        """`silence`, `deadline` and `least_rate`: of `images.transfer_rate.TransferLimits`; `largest_layer`: bytes, unpacked."""
        self._content = ContentStore(root / "content")
        self._snapshotter, self._verifier = snapshotter, verifier
        self._leases = Leases(database)
        self._layers = Layers(snapshotter, launcher, largest_layer)
        self._registry_directory = registry_directory
        self._limits: dict[str, Any] = {"silence": silence, "deadline": deadline, "least_rate": least_rate}
        self._made_puller: Puller | None = None
        self._records: Collection[Image] = Collection(database, "image", encode=asdict, decode=_decode)
        self._pulls = Locks()
        self._naming = threading.Lock()
        self._drop_damaged()

    def pull(self, text: str, credentials: Credentials | None = None, *, namespace: str = "") -> Image:
        """Fetch and unpack; two pulls of one reference run one after the other. Raises what the registry or
        the layers gave; nothing is left then, but for what a retry can go on with."""
        reference = parse_reference(text)
        name = str(reference)
        with self._pulls.hold(name):
            try:
                pulled = self._puller().pull(
                    reference, credentials, lambda digest: self._verifier.verify(name, digest, namespace)
                )
                failpoint.hit("image.pulled")
                with self._naming:  # two names of one image may come at once
                    image = self._remember(reference, pulled)
                failpoint.hit("image.recorded")
            except (Unavailable, DeadlineExceeded, Aborted):
                self._leases.suspend(name)
                raise
            except BaseException:
                self._leases.abandon(name)
                self.collect_garbage(self._snapshotter.layers_in_use())
                self._leases.release(name)
                raise
            self._leases.release(name)
        return image

    def usage(self) -> Usage:
        """Of all blobs and layers, on disk."""
        size, inodes = self._content.usage()
        for chain_id in self._snapshotter.layers():
            try:
                layer = self._snapshotter.layer_usage(chain_id)
            except NotFound:
                continue  # collected meanwhile
            size, inodes = size + layer.size_bytes, inodes + layer.inodes
        return Usage(size, inodes)

    def find(self, text: str, field: str = "image.image") -> Image | None:
        """By id (whole, or 12 digits and more of it), by tag or by digest; InvalidArgument naming `field`
        for what is none of them."""
        digits = text.removeprefix("sha256:")
        if is_digest(f"sha256:{digits}"):
            return self._records.find(f"sha256:{digits}")
        images = self._records.all()
        if len(digits) >= _SHORTEST_ID and all(c in "0123456789abcdef" for c in digits):
            matching = [image for image in images if image.id.startswith(f"sha256:{digits}")]
            if len(matching) == 1:
                return matching[0]
        reference = parse_reference(text, field)
        if reference.digest:
            wanted = f"{reference.name}@{reference.digest}"
            return next((image for image in images if wanted in image.digests), None)
        return next((image for image in images if reference.tagged in image.tags), None)

    def all(self) -> list[Image]:
        """All images."""
        return self._records.all()

    def remove(self, text: str) -> None:
        """Forget the image with all its names. Idempotent. Its layers go when nothing stands on them."""
        image = self.find(text)
        if image is not None:
            self._records.delete(image.id)

    def collect_garbage(self, used_layers: Iterable[str]) -> None:
        """Remove blobs and layers that belong to no image, no pull and no snapshot (`used_layers`)."""
        with self._leases.frozen() as (blobs, layers):
            for image in self._records.all():
                layers.update(image.chain_ids)
                blobs.update(image.blobs)
            layers.update(used_layers)
            for chain_id in self._snapshotter.layers():
                if chain_id not in layers:
                    self._snapshotter.remove_layer(chain_id)
            for digest in self._content.digests():
                if digest not in blobs:
                    self._content.remove(digest)
            for digest in self._content.partial_digests():
                if digest not in blobs:
                    self._content.remove_partial(digest)

    def _puller(self) -> Puller:
        """Made at the first pull: HTTP and TLS are a megabyte that a node with all its images does not need."""
        from runtime_core.images.pull import Puller
        from runtime_core.images.transfer_rate import TransferLimits

        with self._naming:
            if self._made_puller is None:
                self._made_puller = Puller(
                    self._content,
                    self._layers,
                    self._snapshotter,
                    self._leases,
                    registry_directory=self._registry_directory,
                    limits=TransferLimits(**self._limits),
                )
            return self._made_puller

    def _remember(self, reference: Reference, pulled: Pulled) -> Image:
        for other in self._records.all():  # a tag names one image: the latest
            if reference.tagged in other.tags and other.id != pulled.config_digest:
                tags = tuple(tag for tag in other.tags if tag != reference.tagged)
                self._records.put(other.id, replace(other, tags=tags))
        known = self._records.find(pulled.config_digest)
        tags = known.tags if known else ()
        digests = known.digests if known else ()
        image = Image(
            id=pulled.config_digest,
            tags=_with(tags, "" if reference.digest else reference.tagged),
            digests=_with(digests, f"{reference.name}@{pulled.digest}"),
            chain_ids=pulled.chain_ids,
            blobs=tuple(dict.fromkeys((*(known.blobs if known else ()), *pulled.blobs))),
            size=pulled.size,
            document=pulled.config,
        )
        self._records.put(image.id, image)
        return image

    def _drop_damaged(self) -> None:
        """An image whose layers are not all there is not served."""
        for image in self._records.all():
            if not all(self._snapshotter.has(chain) for chain in image.chain_ids):
                self._records.delete(image.id)


def _with(items: tuple[str, ...], item: str) -> tuple[str, ...]:
    return items if not item or item in items else (*items, item)


def _decode(document: dict[str, Any]) -> Image:
    for key in ("tags", "digests", "chain_ids", "blobs"):
        document[key] = tuple(document[key])
    return Image(**document)
