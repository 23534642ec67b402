"""Blobs by digest: <root>/blobs/<algorithm>/<hex>, whole and verified, or not there.

A blob is written to <root>/ingest first; what an interrupted download left there is
continued by the next one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runtime_core.errors import DataLoss, InvalidArgument, NotFound
from runtime_core.images.reference import is_digest
from runtime_core.kernel import failpoint, paths


class ContentStore:
    def __init__(self, root: Path) -> None:
        self._blobs, self._ingest = root / "blobs", root / "ingest"
        for directory in (self._blobs / "sha256", self._blobs / "sha512", self._ingest):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob `digest` is, or would be; InvalidArgument when it is no digest."""
        if not is_digest(digest):
            raise InvalidArgument(f"{digest!r} is not a digest")
        return self._blobs / digest.replace(":", "/")

    def has(self, digest: str) -> bool:
        """Whether the blob is here, complete."""
        return self.path(digest).exists()

    def read(self, digest: str) -> bytes:
        """A small blob; one that has been damaged on the disk is removed, so that it can be fetched again."""
        try:
            content = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in the content store") from None
        hasher = Hasher(digest)
        hasher.update(content)
        if hasher.digest() != digest:
            self.remove(digest)
            raise DataLoss(f"blob {digest} was damaged on the disk and has been removed: it has the digest {hasher.digest()}")
        return content

    def put(self, digest: str, content: bytes) -> None:
        """Store what is in memory; DataLoss when it is not what `digest` says."""
        with self.ingest(digest) as (file, hasher):
            file.truncate(0)
            file.seek(0)
            fresh = hashlib.new(digest.partition(":")[0], content)
            file.write(content)
            hasher.replace(fresh)

    @contextmanager
    def ingest(self, digest: str) -> Iterator[tuple[BinaryIO, Hasher]]:
        """An open file at its end, with the hash of what it already holds; committed when the block ends well."""
        temporary = self._partial(digest)
        with open(temporary, "ab+") as file:
            hasher = Hasher(digest)
            file.seek(0)
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
            yield file, hasher
            file.flush()
            if hasher.digest() != digest:
                temporary.unlink()
                raise DataLoss(f"blob {digest}: what came has the digest {hasher.digest()}")
            os.fsync(file.fileno())
        target = self.path(digest)
        failpoint.hit("content.commit")
        temporary.rename(target)
        paths.sync_directory(str(target.parent))
        failpoint.hit("content.committed")

    def digests(self) -> list[str]:
        """Digests of all complete blobs."""
        return [f"{kind.name}:{blob.name}" for kind in self._blobs.iterdir() for blob in kind.iterdir()]

    def usage(self) -> tuple[int, int]:
        """(bytes on disk, number) of the blobs."""
        sizes = []
        for digest in self.digests():
            try:
                sizes.append(self.path(digest).stat().st_blocks * 512)
            except FileNotFoundError:
                continue  # collected meanwhile
        return sum(sizes), len(sizes)

    def remove(self, digest: str) -> None:
        """Delete a blob. Idempotent."""
        self.path(digest).unlink(missing_ok=True)

    def partial_digests(self) -> list[str]:
        """Blobs whose download has begun and not ended."""
        return [partial.name.replace("-", ":") for partial in self._ingest.iterdir()]

    def partial_size(self, digest: str) -> int:
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def remove_partial(self, digest: str) -> None:
        self._partial(digest).unlink(missing_ok=True)

    def _partial(self, digest: str) -> Path:
        return self._ingest / digest.replace(":", "-")


class Hasher:
    """The digest of what has been written so far."""

    def __init__(self, digest: str) -> None:
        self._algorithm = digest.partition(":")[0]
        self._hash = hashlib.new(self._algorithm)

    def update(self, chunk: bytes) -> None:
        """Hash what is written next."""
        self._hash.update(chunk)

    def replace(self, fresh: hashlib._Hash) -> None:
        """Go on with the state of `fresh`, which has hashed a part already."""
        self._hash = fresh

    def restart(self) -> None:
        self._hash = hashlib.new(self._algorithm)

    def digest(self) -> str:
        """ "<algorithm>:<hex>" of all so far."""
        return f"{self._algorithm}:{self._hash.hexdigest()}"
