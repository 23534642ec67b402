"""Leases on blobs and layers that a pull has fetched and no image uses yet, also for a retry.

A lease is written before a blob or a layer is there, so that garbage collection, also
that of the next daemon, spares what a pull that broke off has brought whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from runtime_core.store.database import Database
from runtime_core.store.records import Collection

#: how long a pull that broke off may be taken up again
_KEPT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Lease:
    reference: str
    blobs: tuple[str, ...]
    layers: tuple[str, ...]
    #: seconds since the epoch
    renewed: float


class Leases:
    """By reference; one pull of a reference runs at a time."""

    def __init__(self, database: Database) -> None:
        self._leases: Collection[Lease] = Collection(database, "lease", encode=asdict, decode=_decode)
        self._running: set[str] = set()
        self._abandoned: set[str] = set()
        self._lock = threading.Lock()

    def hold(self, reference: str, blobs: Iterable[str], layers: Iterable[str] = ()) -> None:
        """Lease these blobs and layers to the reference, in addition to those it has."""
        with self._lock:
            self._running.add(reference)
            self._abandoned.discard(reference)
            held = self._leases.find(reference) or Lease(reference, (), (), 0)
            merged = (tuple({*held.blobs, *blobs}), tuple({*held.layers, *layers}))
            self._leases.put(reference, Lease(reference, *merged, time.time()))

    def release(self, reference: str) -> None:
        """Release the lease: the pull has succeeded, or what it fetched has been removed."""
        with self._lock:
            self._running.discard(reference)
            self._leases.delete(reference)
            self._abandoned.discard(reference)

    def abandon(self, reference: str) -> None:
        """Release the lease of a pull that can never succeed. Writes nothing to disk, which may be full."""
        with self._lock:
            self._abandoned.add(reference)

    def suspend(self, reference: str) -> None:
        """The pull was interrupted: keep the lease for a retry, for an hour."""
        with self._lock:
            self._running.discard(reference)

    @contextmanager
    def frozen(self) -> Iterator[tuple[set[str], set[str]]]:
        """(blobs, layers) that are held; no lease is written within the block."""
        with self._lock:
            blobs: set[str] = set()
            layers: set[str] = set()
            for lease in self._leases.all():
                if lease.reference in self._abandoned:
                    continue
                if lease.reference not in self._running and abs(time.time() - lease.renewed) > _KEPT_SECONDS:
                    self._leases.delete(lease.reference)
                    continue
                blobs.update(lease.blobs)
                layers.update(lease.layers)
            yield blobs, layers


def _decode(document: dict[str, Any]) -> Lease:
    return Lease(document["reference"], tuple(document["blobs"]), tuple(document["layers"]), document["renewed"])
