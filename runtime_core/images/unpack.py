"""A layer blob to a committed layer: decompressed and hashed here, written by a chrooted worker."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from runtime_core.errors import DataLoss, ResourceExhausted, TrivetError, Unavailable, from_name
from runtime_core.interfaces.snapshotter import Snapshotter
from runtime_core.kernel import failpoint, syscalls
from runtime_core.launcher.client import Launcher

_JOB = "runtime_core.images.unpack_worker:main"
_CHUNK = 1 << 18
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_PIECE = 1 << 20
#: of a zstd frame: it is memory of the daemon's
_LARGEST_WINDOW = 1 << 27


def unpack(blob: Path, diff_id: str, directory: str, parents: list[str], launcher: Launcher, *, limit: int) -> None:
    """Fill `directory` with the layer; raises DataLoss when its diff ID is not `diff_id`, and
    ResourceExhausted when it has more than `limit` bytes.

    What was written is on disk when this returns.
    """
    stream_reader, stream_writer = os.pipe2(os.O_CLOEXEC)
    result_reader, result_writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            argument = {"directory": directory, "parents": parents, "limit": limit}
            job = launcher.fork(_JOB, argument, [stream_reader, result_writer])
        finally:
            os.close(stream_reader)
            os.close(result_writer)
        given, stream_writer = stream_writer, -1  # it is closed there
        found, failure = _feed(blob, given, limit)
        report = _report(result_reader, diff_id)
        job.wait()
    finally:
        os.close(result_reader)
        if stream_writer >= 0:
            os.close(stream_writer)
    if failure is not None:  # the worker's complaint is its consequence
        raise type(failure)(f"layer {diff_id}: {failure}")
    if "kind" in report:
        raise from_name(report["kind"], f"layer {diff_id}: {report['message']}")
    if found != diff_id:
        raise DataLoss(f"layer {diff_id}: what was unpacked has the diff ID {found}")
    _sync(directory)


def _feed(blob: Path, writer: int, limit: int) -> tuple[str, TrivetError | None]:
    """Write the blob's tar stream to the pipe and close it; its diff ID, and what is wrong with it."""
    digest = hashlib.sha256()
    failure: TrivetError | None = None
    size = 0
    try:
        with open(blob, "rb") as file:
            for chunk in decompress(file):
                size += len(chunk)
                if size > limit:
                    raise ResourceExhausted(f"unpacked it is larger than the limit of {limit} bytes")
                digest.update(chunk)
                view = memoryview(chunk)
                while view:
                    view = view[os.write(writer, view) :]
    except BrokenPipeError:
        pass  # the worker has given up, and says why
    except TrivetError as error:
        failure = error
    except (zlib.error, OSError) as error:
        failure = DataLoss(f"blob {blob.name}: {error}")
    finally:
        os.close(writer)
    return f"sha256:{digest.hexdigest()}", failure


def decompress(file: BinaryIO) -> Iterator[bytes]:
    """The tar stream of a layer: gzip, zstd or plain, told by its first bytes."""
    start = file.read(4)
    file.seek(0)
    if start.startswith(_GZIP):
        return _gunzip(file)
    if start == _ZSTD:
        return _unzstd(file)
    return iter(lambda: file.read(_CHUNK), b"")


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    """In pieces: one chunk of a bomb would be a quarter of a gigabyte."""
    stream = zlib.decompressobj(wbits=31)
    data = b""
    while data := data or file.read(_CHUNK):
        if stream.eof:
            stream = zlib.decompressobj(wbits=31)  # the next member
        yield stream.decompress(data, _PIECE)
        data = stream.unused_data if stream.eof else stream.unconsumed_tail
    yield stream.flush()
    if not stream.eof:
        raise DataLoss("the gzip stream ends early")


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    import zstandard  # here: only those who meet such a layer need it

    try:
        with zstandard.ZstdDecompressor(max_window_size=_LARGEST_WINDOW).stream_reader(file, read_across_frames=True) as reader:
            while data := reader.read(_CHUNK):
                yield data
    except zstandard.ZstdError as error:
        raise DataLoss(f"the zstd stream is damaged: {error}") from error


def _report(reader: int, diff_id: str) -> dict[str, Any]:
    content = b""
    while data := os.read(reader, 65536):
        content += data
    if not content:
        raise Unavailable(f"layer {diff_id}: the worker that unpacked it has died")
    report: dict[str, Any] = json.loads(content)
    return report


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(descriptor)
    finally:
        os.close(descriptor)


class Layers:
    """Committed layers, each unpacked once however many pulls want it."""

    def __init__(self, snapshotter: Snapshotter, launcher: Launcher, limit: int) -> None:
        """`limit`: bytes that a layer may have when it is unpacked."""
        self._snapshotter, self._launcher, self._limit = snapshotter, launcher, limit
        self._lock = threading.Lock()
        self._underway: dict[str, threading.Lock] = {}

    def ensure(self, blob: Path, diff_id: str, chains: list[str]) -> None:
        """Make `chains[-1]`, whose layer is `blob`, exist on chains[:-1], which do."""
        chain_id = chains[-1]
        with self._lock:
            mine = self._underway.setdefault(chain_id, threading.Lock())
        with mine:
            if self._snapshotter.has(chain_id):
                return
            directory = self._snapshotter.stage(chain_id, chains[-2] if len(chains) > 1 else "")
            try:
                failpoint.hit("layer.staged")
                parents = list(self._snapshotter.view(chains[:-1]).lower)
                unpack(blob, diff_id, directory, parents, self._launcher, limit=self._limit)
                failpoint.hit("layer.unpacked")
                self._snapshotter.commit(chain_id)
                failpoint.hit("layer.committed")
            except BaseException:
                self._snapshotter.abandon(chain_id)
                raise
        with self._lock:
            self._underway.pop(chain_id, None)
