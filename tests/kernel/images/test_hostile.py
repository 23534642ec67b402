"""Registries that lie: each lie has its error, which names the image, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime_core.errors import (
    DataLoss,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    TrivetError,
    Unavailable,
)
from runtime_core.launcher.client import Launcher
from tests.kernel.images.conftest import LARGEST_LAYER, LAYER_TYPE, Store, digest, large_layer, layer
from tests.support.hostile_registry import (
    HostileRegistry,
    break_off,
    drip,
    endless,
    endless_chunks,
    hang,
    hang_at_once,
    refuse,
    say,
)

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_SMALL = layer("small")
Prepare = Callable[[HostileRegistry], None]


def _image(registry: HostileRegistry, **changes: Any) -> None:
    """t/x:1 with one small layer; `changes` replace keys of its manifest."""
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": changes.pop("diff_ids", [digest(_SMALL[1])])}}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": {"mediaType": _CONFIG, "digest": registry.put_blob(config), "size": len(config)},
        "layers": [_descriptor(registry, _SMALL[0])],
        **changes,
    }
    registry.put_manifest("t/x", "1", document)


def _descriptor(registry: HostileRegistry, blob: bytes, **changes: Any) -> dict[str, Any]:
    return {"mediaType": LAYER_TYPE, "digest": registry.put_blob(blob), "size": len(blob), **changes}


def _index(registry: HostileRegistry, **entry: Any) -> None:
    """t/x:1 as an index with one entry, which is like an image's manifest but for `entry`."""
    _image(registry)
    body = registry.answer("/v2/t/x/manifests/1")
    assert body is not None
    entry = {"mediaType": _MANIFEST, "digest": digest(body[1]), "size": len(body[1]), **entry}
    registry.put_manifest("t/x", "1", {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]})


def _nested(registry: HostileRegistry) -> None:
    _image(registry)
    for _level in range(4):
        body = registry.answer("/v2/t/x/manifests/1")
        assert body is not None
        entry = {"mediaType": _INDEX, "digest": digest(body[1]), "size": len(body[1])}
        entry["platform"] = {"os": "linux", "architecture": _machine()}  # type: ignore[assignment]
        registry.put_manifest("t/x", "1", {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [entry]})


def _machine() -> str:
    from runtime_core.images.manifest import machine_platform

    return machine_platform()[0]


def _layers(*changes: dict[str, Any]) -> Prepare:
    return lambda registry: _image(registry, layers=[_descriptor(registry, _SMALL[0], **change) for change in changes])


def _blob(blob: bytes, tar: bytes) -> Prepare:
    """The layer is `blob`, and its diff ID is that of `tar`."""
    return lambda registry: _image(registry, layers=[_descriptor(registry, blob)], diff_ids=[digest(tar)])


def _act(part: str, act: Any) -> Prepare:
    def prepare(registry: HostileRegistry) -> None:
        _image(registry)
        registry.misbehave(part, act)

    return prepare


def _config_is(content: bytes) -> Prepare:
    return lambda registry: _image(
        registry, config={"mediaType": _CONFIG, "digest": registry.put_blob(content), "size": len(content)}
    )


_DIGEST = digest(_SMALL[0])
_BOMB = layer("bomb", bytes(LARGEST_LAYER), level=9)
LIES: dict[str, tuple[Prepare, type[TrivetError], str]] = {
    "other bytes": (_act(_DIGEST, say(bytes(len(_SMALL[0])))), DataLoss, f"{_DIGEST}: what came has the digest"),
    "too many bytes": (_act(_DIGEST, say(bytes(9999))), DataLoss, f"{_DIGEST} has 9999 bytes"),
    "too few bytes": (_act(_DIGEST, say(b"x")), DataLoss, f"{_DIGEST} has 1 bytes"),
    "an endless blob": (_act(_DIGEST, endless), DataLoss, f"{_DIGEST} is larger than"),
    "an endless manifest": (_act("/manifests/", endless), ResourceExhausted, "the manifest .* is larger than"),
    "a size too large": (_layers({"size": 10**9}), DataLoss, f"{_DIGEST} has {len(_SMALL[0])} bytes"),
    "a size too small": (_layers({"size": 3}), DataLoss, "its descriptor says 3"),
    "a negative size": (_layers({"size": -1}), InvalidArgument, "no valid size"),
    "a huge configuration": (
        lambda r: _image(r, config={"mediaType": _CONFIG, "digest": _DIGEST, "size": 10**9}), ResourceExhausted, "configuration"),
    "a digest of another algorithm": (_layers({"digest": "md5:" + "a" * 32}), InvalidArgument, "malformed descriptor"),
    "a digest that is a path": (_layers({"digest": "sha256:../../../etc/passwd"}), InvalidArgument, "malformed descriptor"),
    "an unknown manifest": (
        lambda r: _image(r, mediaType="application/vnd.example+json"), InvalidArgument, "'application/vnd.example"),
    "schema 1": (lambda r: _image(r, schemaVersion=1), InvalidArgument, "schema 1"),
    "an HTML page": (_act("/manifests/", say(b"<html>", "text/html")), DataLoss, "not JSON"),
    "deep JSON": (_act("/manifests/", say(b"[" * 100_000, _MANIFEST)), DataLoss, "not JSON"),
    "an index that is a manifest": (lambda r: _image(r, manifests=[]), InvalidArgument, "CVE-2021-41190"),
    "another type in the header": (
        _act("/manifests/", say(json.dumps({"mediaType": _INDEX, "manifests": []}).encode(), _MANIFEST)),
        InvalidArgument, "CVE-2021-41190"),
    "another digest in the header": (
        _act("/manifests/", say(b"{}", _MANIFEST, Docker_Content_Digest="sha256:" + "0" * 64)), DataLoss, "which it has not"),
    "no platform of ours": (
        lambda r: _index(r, platform={"os": "linux", "architecture": "vax"}), NotFound, "no variant for linux/"),
    "another system": (
        lambda r: _index(r, platform={"os": "windows", "architecture": _machine()}), NotFound, "no variant for linux/"),
    "an index that lies about a size": (
        lambda r: _index(r, platform={"os": "linux", "architecture": _machine()}, size=5), DataLoss, "its descriptor says 5"),
    "an index with a platform that is none": (lambda r: _index(r, platform=["linux"]), InvalidArgument, "platform that is not an object"),
    "an index with a system that is none": (lambda r: _index(r, platform={"os": 1}), InvalidArgument, "platform.os that is not a string"),
    "a size that is a truth": (_layers({"size": True}), InvalidArgument, "no valid size"),
    "a size that is a string": (_layers({"size": "12"}), InvalidArgument, "no valid size"),
    "an index of a missing manifest": (
        lambda r: _index(r, platform={"os": "linux", "architecture": _machine()}, digest="sha256:" + "1" * 64), NotFound, "1111"),
    "indexes without end": (_nested, InvalidArgument, "nested"),
    "too few diff IDs": (lambda r: _image(r, diff_ids=[]), InvalidArgument, "0 diff IDs, the manifest 1 layers"),
    "too many diff IDs": (lambda r: _image(r, diff_ids=[digest(_SMALL[1])] * 2), InvalidArgument, "2 diff IDs"),
    "a diff ID that is none": (lambda r: _image(r, diff_ids=["sha256:x"]), InvalidArgument, "diff_ids is malformed"),
    "another diff ID": (lambda r: _image(r, diff_ids=["sha256:" + "2" * 64]), DataLoss, "has the diff ID"),
    "a configuration that is no JSON": (_config_is(b"\xff"), DataLoss, "image configuration is not JSON"),
    "too many layers": (_layers(*[{}] * 501), ResourceExhausted, "501 layers"),
    "an encrypted layer": (_layers({"mediaType": LAYER_TYPE + "+encrypted"}), InvalidArgument, "is of type"),
    "an artifact": (_layers({"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip"}), InvalidArgument, "helm"),
    "a bomb": (_blob(_BOMB[0], _BOMB[1]), ResourceExhausted, f"larger than the limit of {LARGEST_LAYER} bytes"),
    "a gzip stream cut short": (_blob(_SMALL[0][:-9], _SMALL[1]), DataLoss, "ends early"),
    "garbage behind the gzip stream": (_blob(_SMALL[0] + b"garbage", _SMALL[1]), DataLoss, "blob"),
    "a damaged zstd stream": (_blob(b"\x28\xb5\x2f\xfd" + b"\xff" * 99, _SMALL[1]), DataLoss, "zstd"),
    "no archive": (_blob(gzip.compress(b"text" * 500), b"text" * 500), DataLoss, "checksum"),
    "nothing": (_act("/manifests/", refuse(404)), NotFound, "HTTP 404"),
    "a missing blob": (_layers({"digest": "sha256:" + "3" * 64}), NotFound, "3333"),
    "no entry": (_act("/manifests/", refuse(403)), PermissionDenied, "HTTP 403"),
    "no entry without credentials": (
        _act("/manifests/", refuse(401, WWW_Authenticate='Basic realm="x"')), PermissionDenied, "wants credentials"),
    "an unknown challenge": (_act("/manifests/", refuse(401, WWW_Authenticate="Digest x")), PermissionDenied, "wants credentials"),
    "a token server that is no URL": (
        _act("/manifests/", refuse(401, WWW_Authenticate='Bearer realm="file:///etc/passwd"')), InvalidArgument, "not a URL"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_has_its_error_and_leaves_nothing(lie: str, store: Store, registry: HostileRegistry) -> None:
    """By kind, with the image's name; no blob, no part of one, no layer, no stage, no image."""
    prepare, kind, message = LIES[lie]
    prepare(registry)
    reference = f"{registry.host}/t/x:1"
    with pytest.raises(kind, match=message) as refused:
        store.images.pull(reference)
    assert type(refused.value) is kind
    assert str(refused.value).startswith(f"{reference}: ")
    assert store.images.all() == []
    assert store.left() == []


_RIGHT = {"rootfs": {"type": "layers", "diff_ids": [digest(_SMALL[1])]}}


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"Entrypoint": "/bin/echo hi"}, "config.Entrypoint is not a list"),
        ({"Entrypoint": [1]}, r"config.Entrypoint\[0\] is not a string"),
        ({"Entrypoint": ["a", None]}, r"config.Entrypoint\[1\] is not a string"),
        ({"Cmd": {}}, "config.Cmd is not a list"),
        ({"Env": {"A": "b"}}, "config.Env is not a list"),
        ({"Env": [["A", "b"]]}, r"config.Env\[0\] is not a string"),
        ({"User": 1000}, "config.User is not a string"),
        ({"User": "\ud800"}, "config.User has half of a surrogate pair"),
        ({"WorkingDir": ["/"]}, "config.WorkingDir is not a string"),
        ({"StopSignal": 15}, "config.StopSignal is not a string"),
        ({"Labels": []}, "config.Labels is not an object"),
        ({"Labels": {"a": 1}}, r"config.Labels\['a'\] is not a string"),
        ({"Volumes": ["/data"]}, "config.Volumes is not an object"),
        ({"Volumes": {"/data": "x"}}, r"config.Volumes\['/data'\] is not an object"),
        ({"ExposedPorts": "80/tcp"}, "config.ExposedPorts is not an object"),
        ({"ArgsEscaped": "true"}, "config.ArgsEscaped is neither true nor false"),
        ("x", "config is not an object"),
    ],
)
def test_a_configuration_of_other_types_is_refused(config: Any, key: str, store: Store, registry: HostileRegistry) -> None:
    """By its key, when it is pulled; nothing is left."""
    _config_is(json.dumps({**_RIGHT, "config": config}).encode())(registry)
    with pytest.raises(InvalidArgument, match=f"the image configuration's {key}"):
        store.images.pull(f"{registry.host}/t/x:1")
    assert store.left() == []


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"os": 1}, "os is not"),
        ({"history": [{"created_by": 1}]}, r"history\[0\].created_by is not"),
        ({"created": 0}, "created is not"),
    ],
)
def test_the_rest_of_a_configuration_has_types_too(
    document: dict[str, Any], key: str, store: Store, registry: HostileRegistry
) -> None:
    """Those of the specification."""
    _config_is(json.dumps({**_RIGHT, **document}).encode())(registry)
    with pytest.raises(InvalidArgument, match=f"the image configuration's {key}"):
        store.images.pull(f"{registry.host}/t/x:1")


def test_null_is_as_good_as_nothing(store: Store, registry: HostileRegistry) -> None:
    """Go writes it for an empty list; and keys that nobody knows may hold anything."""
    keys = ("Entrypoint", "Cmd", "Env", "User", "WorkingDir", "StopSignal", "Labels", "Volumes", "ExposedPorts", "ArgsEscaped")
    config = {**dict.fromkeys(keys), "Healthcheck": {"Interval": 1}, "OnBuild": None, "Tty": False, "x": [1]}
    _config_is(json.dumps({**_RIGHT, "config": config, "history": None, "os": None, "author": None}).encode())(registry)
    assert store.images.pull(f"{registry.host}/t/x:1").config == config
    _config_is(json.dumps({**_RIGHT, "config": None}).encode())(registry)
    assert store.images.pull(f"{registry.host}/t/x:1").config == {}


@pytest.mark.parametrize("others", [[], [{"os": "windows", "architecture": "vax"}], [{"os": "linux", "architecture": "vax"}]])
def test_an_index_entry_without_a_platform_is_taken_when_nothing_fits_better(
    others: list[dict[str, str]], store: Store, registry: HostileRegistry
) -> None:
    """Wherever it stands; one for this machine goes before it, and no attestation is taken for an image."""
    _index(registry)
    body = registry.answer("/v2/t/x/manifests/1")
    assert body is not None
    (plain,) = json.loads(body[1])["manifests"]
    missing = {**plain, "digest": "sha256:" + "7" * 64}
    foreign = [{**missing, "platform": platform} for platform in others]
    artifact = {**missing, "mediaType": "application/vnd.example.signature"}
    ours = {**plain, "platform": {"os": "linux", "architecture": _machine()}}
    for entries in ([artifact, *foreign, plain], [missing, *foreign, ours], [ours, missing]):
        registry.put_manifest("t/x", "1", {"schemaVersion": 2, "mediaType": _INDEX, "manifests": entries})
        assert store.images.pull(f"{registry.host}/t/x:1").tags


@pytest.mark.parametrize(("part", "head"), [(b" ", False), (b"X-A: b\r\n", True)])
@pytest.mark.parametrize("document", ["/manifests/", "/token"])
def test_a_document_that_drips_has_an_end(
    document: str, part: bytes, head: bool, store: Store, registry: HostileRegistry
) -> None:
    """Never silent and never whole, in its body or in its headers."""
    _image(registry)
    registry.misbehave("/manifests/", refuse(401, WWW_Authenticate=f'Bearer realm="http://{registry.host}/token"'))
    registry.misbehave(document, drip(part, 0.1, head=head))
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=f"{registry.host} has not sent all of its answer within 2 s"):
        store.images.pull(f"{registry.host}/t/x:1")
    assert 1.5 < time.monotonic() - started < 10


def test_a_blob_that_drips_is_given_up(store: Store, registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured over a window of waiting; the head of its answer has the deadline of a document."""
    monkeypatch.setattr("runtime_core.images.transfer_rate._WINDOW", 0.6)
    large = large_layer()
    reference = registry.put_image("t/x", "1", [large], {})
    registry.misbehave(digest(large[0]), drip(b"x" * 50, 0.1, size=len(large[0])))
    with pytest.raises(DeadlineExceeded, match=f"{registry.host} has sent .* bytes in .* s, less than 1024 bytes a second"):
        store.images.pull(reference)
    assert registry.count(digest(large[0])) == 3
    registry.misbehave(digest(large[0]), drip(b"X-A: b\r\n", 0.1, head=True))
    with pytest.raises(DeadlineExceeded, match="has not sent all of its answer within 2 s"):
        store.images.pull(reference)


def test_a_blob_that_comes_slowly_and_steadily_comes(
    store: Store, registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take longer than a document's deadline."""
    monkeypatch.setattr("runtime_core.images.transfer_rate._WINDOW", 0.3)
    store.reopen(deadline=0.5)
    large = large_layer(size=1 << 16)
    reference = registry.put_image("t/x", "1", [large], {})

    def slowly(handler: Any) -> None:
        _kind, body = handler.body()
        handler.begin(200, Content_Length=len(body))
        for start in range(0, len(body), 8192):
            handler.registry.closing.wait(0.1)
            handler.wfile.write(body[start : start + 8192])

    registry.misbehave(digest(large[0]), slowly)
    assert store.images.pull(reference).tags == (reference,)
    assert registry.count(digest(large[0])) == 1


@pytest.mark.parametrize("act", [endless_chunks, endless, say(bytes(3 << 20))])
def test_more_bytes_than_the_descriptor_says_are_refused_at_once(act: Any, store: Store, registry: HostileRegistry) -> None:
    """Not asked for again, though each attempt would bring a megabyte."""
    large = large_layer(size=2 << 20)
    reference = registry.put_image("t/x", "1", [large], {})
    registry.misbehave(digest(large[0]), act)
    with pytest.raises(DataLoss, match="is larger than the|its descriptor says"):
        store.images.pull(reference)
    assert registry.count(digest(large[0])) == 1
    assert store.left() == []


def test_attempts_are_counted_whatever_they_bring(
    store: Store, registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blob of which each attempt brings something, from a registry that does not want to end."""
    monkeypatch.setattr("runtime_core.images.pull._PROGRESS", 1)
    large = large_layer(size=1 << 20)
    reference = registry.put_image("t/x", "1", [large], {})

    def some(handler: Any) -> None:
        _kind, body = handler.body()
        begin = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.begin(206, Content_Length=len(body) - begin, Content_Range=f"bytes {begin}-{len(body) - 1}/{len(body)}")
        handler.wfile.write(body[begin : begin + 1000])
        handler.close_connection = True

    registry.misbehave(digest(large[0]), some)
    with pytest.raises(Unavailable, match="broke off"):
        store.images.pull(reference)
    assert registry.count(digest(large[0])) == 20


def test_a_failed_pull_takes_nothing_from_an_image_that_is_there(store: Store, registry: HostileRegistry) -> None:
    """What they share stays."""
    good = registry.put_image("t/good", "1", [_SMALL], {})
    store.images.pull(good)
    before = store.left()
    bad = registry.put_image("t/bad", "1", [_SMALL, layer("other")], {})
    registry.misbehave(digest(layer("other")[0]), say(b"lie"))
    with pytest.raises(DataLoss):
        store.images.pull(bad)
    assert sorted(store.left()) == sorted(before)
    assert store.images.find(good) is not None


@pytest.mark.parametrize(
    ("part", "act", "kind", "message"),
    [
        ("/manifests/", hang_at_once, DeadlineExceeded, "has not answered for 0.5 s"),
        ("/manifests/", hang(10), DeadlineExceeded, "has sent nothing for 0.5 s"),
        ("/blobs/", hang_at_once, DeadlineExceeded, "has not answered for 0.5 s"),
        ("/blobs/", hang(10), DeadlineExceeded, "has sent nothing for 0.5 s"),
        ("/manifests/", break_off(10), Unavailable, "broke off"),
        ("/blobs/", break_off(10), Unavailable, "broke off"),
        ("/blobs/", refuse(500), Unavailable, "HTTP 500"),
        ("/manifests/", refuse(429, Retry_After=3600), Unavailable, "HTTP 429"),
    ],
)
def test_a_registry_in_trouble_is_named_and_the_next_pull_goes_on(
    part: str, act: Any, kind: type[TrivetError], message: str, store: Store, registry: HostileRegistry
) -> None:
    """In time, with nothing to be seen; when the trouble has passed the image comes, and nothing whole comes twice."""
    first, second = layer("first"), large_layer()
    reference = registry.put_image("t/x", "1", [first, second], {})
    registry.misbehave(part if part == "/manifests/" else digest(second[0]), act)
    started = time.monotonic()
    with pytest.raises(kind, match=message) as refused:
        store.images.pull(reference)
    assert time.monotonic() - started < 10
    assert str(refused.value).startswith(f"{reference}: ")
    assert registry.host in str(refused.value)
    assert store.images.all() == []
    assert not [name for name in store.left() if "/stage/" in name]
    whole = store.blobs()
    registry.behave()
    store.reopen()
    assert store.blobs() == whole
    assert store.images.pull(reference).tags == (reference,)
    assert not [blob for blob in whole if registry.count(f"/blobs/{blob}")]


@pytest.mark.parametrize(
    ("act", "times"),
    [(refuse(429, Retry_After=1), 1), (refuse(503), 2), (refuse(502), 1), (break_off(100_000), 1), (hang(100_000), 1)],
)
def test_trouble_that_passes_is_waited_for(act: Any, times: int, store: Store, registry: HostileRegistry) -> None:
    """Within one pull; a blob that broke off is continued where it stopped."""
    large = large_layer()
    reference = registry.put_image("t/x", "1", [large], {})
    registry.misbehave(digest(large[0]), act, times)
    assert store.images.pull(reference).tags == (reference,)
    ranges = [asked.headers.get("Range") for asked in registry.asked if digest(large[0]) in asked.path]
    assert len(ranges) == times + 1
    if act.__qualname__.startswith(("hang", "break_off")):
        assert ranges[1] is not None


def test_retry_after_is_obeyed(store: Store, registry: HostileRegistry) -> None:
    """Not asked again before its time."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    registry.misbehave("/manifests/", refuse(429, Retry_After=1), 1)
    started = time.monotonic()
    store.images.pull(reference)
    assert time.monotonic() - started >= 1


def test_steady_progress_is_no_failure_however_often_it_breaks(store: Store, registry: HostileRegistry) -> None:
    """A registry that closes every connection after a bit more than a megabyte: four times is once too often elsewhere."""
    content = large_layer(size=6 << 20)
    reference = registry.put_image("t/x", "1", [content], {})

    def some(handler: Any) -> None:
        _kind, body = handler.body()
        begin = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.begin(206, Content_Length=len(body) - begin, Content_Range=f"bytes {begin}-{len(body) - 1}/{len(body)}")
        handler.wfile.write(body[begin : begin + (5 << 18)])
        handler.close_connection = True

    registry.misbehave(digest(content[0]), some, 4)
    assert store.images.pull(reference).tags == (reference,)
    assert registry.count(digest(content[0])) == 5


def test_what_is_left_of_a_blob_that_has_changed_is_fetched_anew(store: Store, registry: HostileRegistry) -> None:
    """A part that is not the beginning of it, and a registry that knows no ranges or another part."""
    large = large_layer()
    reference = registry.put_image("t/x", "1", [large], {})
    partial = store.directory / "content" / "ingest" / digest(large[0]).replace(":", "-")
    partial.write_bytes(b"something else" * 1000)
    assert store.images.pull(reference).tags == (reference,)

    other = large_layer("other")
    reference = registry.put_image("t/y", "1", [other], {})
    partial = store.directory / "content" / "ingest" / digest(other[0]).replace(":", "-")
    partial.write_bytes(other[0][:5000])
    registry.misbehave(digest(other[0]), refuse(416), 1)
    assert store.images.pull(reference).tags == (reference,)


@pytest.mark.parametrize("size", ["1m", "3500k"])
def test_a_full_disk_is_said_and_given_back(size: str, tmp_path: Path, launcher: Launcher, registry: HostileRegistry) -> None:
    """Full by the blob, or by what is unpacked of it: ResourceExhausted, everything freed, and a small image still comes."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(directory)], check=True)
    try:
        store = Store(directory, launcher)
        reference = registry.put_image("t/x", "1", [large_layer(size=2 << 20)], {})
        with pytest.raises(ResourceExhausted, match="No space left on device") as refused:
            store.images.pull(reference)
        assert str(refused.value).startswith(f"{reference}: ")
        assert store.left() == []
        assert store.images.pull(registry.put_image("t/y", "1", [_SMALL], {})).tags
        store.close()
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
