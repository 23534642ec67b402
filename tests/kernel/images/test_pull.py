"""Pulling as it should go: who is asked with which secrets, how often, and by which names an image is found."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

import pytest

from plugins.image_verifiers.accept import AcceptAll
from runtime_core.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from runtime_core.images.auth_challenge import Credentials
from runtime_core.images.store import Image
from tests.kernel.images.conftest import LAYER_TYPE, Store, digest, large_layer, layer
from tests.support.hostile_registry import HostileRegistry, break_off, redirect, refuse, say

_SMALL = layer("small")
_JANE = Credentials(username="jane", password="secret")
_BASIC = "Basic " + base64.b64encode(b"jane:secret").decode()


def _secrets(registry: HostileRegistry) -> set[str]:
    return {asked.headers["Authorization"] for asked in registry.asked if "Authorization" in asked.headers}


# -- redirects


def test_a_redirect_is_followed_without_secrets(store: Store, registry: HostileRegistry, elsewhere: HostileRegistry) -> None:
    """Neither credentials nor configured headers go to another host (CVE-2020-15157)."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    hosts = store.directory / "registries" / registry.host / "hosts.toml"
    hosts.parent.mkdir(parents=True)
    hosts.write_text(f'server = "http://{registry.host}"\n[header]\nx-key = "configured"\n')
    blob = digest(_SMALL[0])
    elsewhere.put_blob(_SMALL[0])
    registry.misbehave("/manifests/", refuse(401, WWW_Authenticate='Basic realm="x"'), 1)
    registry.misbehave(blob, redirect(f"http://{elsewhere.host}/v2/else/blobs/{blob}"))
    assert store.images.pull(reference, _JANE).tags == (reference,)
    assert _BASIC in _secrets(registry)
    assert {asked.headers.get("x-key") for asked in registry.asked} == {"configured"}
    assert elsewhere.count(blob) == 1
    assert _secrets(elsewhere) == set()
    assert {asked.headers.get("x-key") for asked in elsewhere.asked} == {None}


def test_where_a_redirect_leads_cannot_ask_for_credentials(
    store: Store, registry: HostileRegistry, elsewhere: HostileRegistry
) -> None:
    """Its challenge is not answered, and its token server hears nothing."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    realm = f'Bearer realm="http://{elsewhere.host}/token"'
    registry.misbehave(digest(_SMALL[0]), redirect(f"http://{elsewhere.host}/v2/x"))
    elsewhere.misbehave("/v2/x", refuse(401, WWW_Authenticate=realm))
    with pytest.raises(PermissionDenied, match=f"on {elsewhere.host}: HTTP 401"):
        store.images.pull(reference, _JANE)
    assert elsewhere.count("/token") == 0
    assert _secrets(elsewhere) == set()


@pytest.mark.parametrize(
    ("location", "complaint"),
    [("/v2/t/x/manifests/1", "more than 5 times"), ("file:///etc/passwd", "refused"), ("", "more than 5 times"),
     ("http://[::1", "redirects to"), ("http://127.0.0.1:x/", "cannot be reached"), ("http://127.0.0.1:1/", "cannot be reached")],
)  # fmt: skip
def test_a_redirect_to_nowhere_is_an_error(location: str, complaint: str, store: Store, registry: HostileRegistry) -> None:
    """In a circle, to a file, malformed, to nobody."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    registry.misbehave("/manifests/", redirect(location))
    with pytest.raises(Unavailable, match=complaint):
        store.images.pull(reference)


def test_the_urls_of_a_foreign_layer_are_not_followed(
    store: Store, registry: HostileRegistry, elsewhere: HostileRegistry
) -> None:
    """The registry is asked, and nobody else: NotFound where it does not have the layer itself."""
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    reference = registry.put_image("t/x", "1", [(_SMALL[0], _SMALL[1], kind)], {})
    document = json.loads(registry.answer("/v2/t/x/manifests/1")[1])  # type: ignore[index]
    document["layers"][0]["urls"] = [f"http://{elsewhere.host}/v2/x"]
    registry.put_manifest("t/x", "1", document)
    registry.misbehave(digest(_SMALL[0]), refuse(404))
    with pytest.raises(NotFound, match=digest(_SMALL[0])):
        store.images.pull(reference, _JANE)
    assert elsewhere.asked == []
    registry.behave()
    assert store.images.pull(reference).tags == (reference,)


# -- tokens


def _wants_token(registry: HostileRegistry, token_server: HostileRegistry, token: str = "t0k3n") -> None:  # noqa: S107
    def guard(handler: Any) -> None:
        if handler.headers.get("Authorization") == f"Bearer {token}":
            handler.rest()
        else:
            realm = f'Bearer realm="http://{token_server.host}/token",service="s",scope="repository:t/x:pull"'
            handler.begin(401, Content_Length=0, WWW_Authenticate=realm)

    registry.misbehave("/v2/", guard)
    token_server.misbehave("/token", say(json.dumps({"token": token}).encode(), "application/json"))


def test_a_bearer_token_is_fetched_with_the_credentials(
    store: Store, registry: HostileRegistry, elsewhere: HostileRegistry
) -> None:
    """From the server that the challenge names, with its scope; the registry gets the token alone."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    _wants_token(registry, elsewhere)
    assert store.images.pull(reference, _JANE).tags == (reference,)
    assert [asked.path for asked in elsewhere.asked] == ["/token?scope=repository%3At%2Fx%3Apull&service=s&account=jane"]
    assert (_secrets(elsewhere), _secrets(registry)) == ({_BASIC}, {"Bearer t0k3n"})


@pytest.mark.parametrize(
    ("act", "kind", "complaint"),
    [
        (refuse(401), PermissionDenied, "refuses: HTTP 401"),
        (refuse(503), Unavailable, "answers HTTP 503"),
        (say(b"<html>"), Exception, "sent no JSON object"),
        (say(b"[]"), Exception, "sent no JSON object"),
        (say(b"{}"), PermissionDenied, "sent no token"),
        (say(b'{"token": "a\\r\\nX-Evil: 1"}'), PermissionDenied, "sent no token"),
        (say(bytes(2 << 20)), Exception, "the token from .* is larger than"),
    ],
)
def test_a_token_server_that_gives_none_is_named(
    act: Any, kind: type[Exception], complaint: str, store: Store, registry: HostileRegistry, elsewhere: HostileRegistry
) -> None:
    """With what it did."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    _wants_token(registry, elsewhere)
    elsewhere.misbehave("/token", act)
    with pytest.raises(kind, match=complaint) as refused:
        store.images.pull(reference, _JANE)
    assert elsewhere.host in str(refused.value)
    assert "secret" not in str(refused.value)
    assert store.left() == []


@pytest.mark.parametrize("in_one_line", [True, False])
@pytest.mark.parametrize("basic_first", [True, False])
def test_bearer_is_answered_when_basic_is_offered_too(
    in_one_line: bool, basic_first: bool, store: Store, registry: HostileRegistry, elsewhere: HostileRegistry
) -> None:
    """With a password at hand, wherever Bearer stands; the registry never sees the password."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    offered = [f'Bearer realm="http://{elsewhere.host}/token",service="s"', 'Basic realm="reg"'][:: -1 if basic_first else 1]

    def guard(handler: Any) -> None:
        if handler.headers.get("Authorization") == "Bearer t0k3n":
            handler.rest()
            return
        handler.send_response(401)
        for line in [", ".join(offered)] if in_one_line else offered:
            handler.send_header("WWW-Authenticate", line)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    registry.misbehave("/v2/", guard)
    elsewhere.misbehave("/token", say(b'{"token": "t0k3n"}', "application/json"))
    assert store.images.pull(reference, _JANE).tags == (reference,)
    assert (_secrets(elsewhere), _secrets(registry)) == ({_BASIC}, {"Bearer t0k3n"})


def test_a_token_of_the_callers_own_is_used_as_it_is(store: Store, registry: HostileRegistry, elsewhere: HostileRegistry) -> None:
    """AuthConfig.registry_token."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    _wants_token(registry, elsewhere)
    assert store.images.pull(reference, Credentials(registry_token="t0k3n")).tags == (reference,)
    assert elsewhere.asked == []


def test_an_identity_token_is_exchanged_for_one(store: Store, registry: HostileRegistry, elsewhere: HostileRegistry) -> None:
    """AuthConfig.identity_token, by a form; neither it nor anything else goes to the registry, or where a redirect leads."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    _wants_token(registry, elsewhere)
    forms: list[dict[str, list[str]]] = []

    def exchange(handler: Any) -> None:
        forms.append(parse_qs(handler.form, keep_blank_values=True))
        say(b'{"access_token": "t0k3n"}')(handler)

    elsewhere.misbehave("/token", exchange)
    assert store.images.pull(reference, Credentials(identity_token="refresh me")).tags == (reference,)
    assert forms == [
        {"grant_type": ["refresh_token"], "client_id": ["trivet"], "service": ["s"], "scope": ["repository:t/x:pull"],
         "refresh_token": ["refresh me"]},
    ]  # fmt: skip
    assert _secrets(registry) == {"Bearer t0k3n"}
    elsewhere.misbehave("/token", redirect(f"http://{registry.host}/steal"))
    with pytest.raises(PermissionDenied, match="refuses: HTTP 307"):
        store.images.pull(f"{reference}9", Credentials(identity_token="refresh me"))
    assert registry.count("/steal") == 0


# -- how often


def _at_once(store: Store, *pulls: tuple[str, Credentials | None]) -> list[Image]:
    barrier = threading.Barrier(len(pulls))

    def pull(reference: str, credentials: Credentials | None) -> Image:
        barrier.wait()
        return store.images.pull(reference, credentials)

    with ThreadPoolExecutor(len(pulls)) as pool:
        return [future.result() for future in [pool.submit(pull, *each) for each in pulls]]


def test_pulls_at_once_fetch_each_blob_once(store: Store, registry: HostileRegistry) -> None:
    """The same image by two names, by its digest, and with other credentials; each is asked for its manifest, though."""
    layers = [large_layer("a"), large_layer("b"), layer("c")]
    one = registry.put_image("t/x", "1", layers, {})
    two = registry.put_image("t/x", "2", layers, {})
    by_digest = f"{registry.host}/t/x@{digest(registry.answer('/v2/t/x/manifests/1')[1])}"  # type: ignore[index]
    other = registry.put_image("t/y", "1", layers, {"Env": ["other=1"]})
    found = _at_once(store, (one, None), (two, None), (by_digest, None), (other, None), (one, _JANE))
    for blob, _tar, _kind in layers:
        assert registry.count(f"/blobs/{digest(blob)}") == 1
    assert len({image.id for image in found}) == 2
    image = store.images.find(one)
    assert image is not None
    assert set(image.tags) == {one, two}
    assert registry.count("/manifests/1") >= 2
    assert not [name for name in store.left() if "ingest" in name or "stage" in name]


def test_what_is_there_is_not_fetched_again(store: Store, registry: HostileRegistry) -> None:
    """A second pull asks for the manifest alone."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    store.images.pull(reference)
    registry.behave()
    store.images.pull(reference)
    assert [asked.path for asked in registry.asked] == ["/v2/t/x/manifests/1"]


def test_a_broken_pull_is_spared_by_garbage_collection_for_an_hour(
    store: Store, registry: HostileRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by that of the next daemon; after it, what nobody came for goes."""
    first, second = layer("first"), large_layer()
    reference = registry.put_image("t/x", "1", [first, second], {})
    registry.misbehave(digest(second[0]), break_off(5000))
    with pytest.raises(Unavailable):
        store.images.pull(reference)
    assert digest(first[0]) in store.blobs()
    store.reopen()
    assert digest(first[0]) in store.blobs()
    assert [name for name in store.left() if "ingest" in name]
    monkeypatch.setattr("runtime_core.images.leases._KEPT_SECONDS", 0)
    store.reopen()
    assert store.left() == []


def test_garbage_collection_beside_a_pull_takes_nothing_of_it(store: Store, registry: HostileRegistry) -> None:
    """It runs in the middle, after one layer is there and before the next one."""
    first, second = layer("first"), large_layer()
    reference = registry.put_image("t/x", "1", [first, second], {})

    def sweep(handler: Any) -> None:
        store.images.collect_garbage(())
        handler.rest()

    registry.misbehave(digest(second[0]), sweep, 1)
    assert store.images.pull(reference).tags == (reference,)
    assert {digest(first[0]), digest(second[0])} <= store.blobs()


# -- who may


class _Nobody(AcceptAll):
    def verify(self, reference: str, manifest_digest: str, namespace: str) -> None:
        raise PermissionDenied(f"rule 1: {reference}@{manifest_digest} may not run in {namespace}")


def test_an_image_that_may_not_run_is_not_fetched(store: Store, registry: HostileRegistry) -> None:
    """The verifier is asked before anything but the manifest has come, and nothing is left."""
    store.reopen(verifier=_Nobody())
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    with pytest.raises(PermissionDenied, match="rule 1.*may not run in prod"):
        store.images.pull(reference, namespace="prod")
    assert registry.count("/blobs/") == 0
    assert store.left() == []


# -- mirrors


def _hosts(store: Store, domain: str, *mirrors: HostileRegistry | str, server: HostileRegistry | str) -> None:
    directory = store.directory / "registries" / domain
    directory.mkdir(parents=True)
    names = [mirror if isinstance(mirror, str) else f"http://{mirror.host}" for mirror in mirrors]
    end = server if isinstance(server, str) else f"http://{server.host}"
    tables = "".join(f'[host."{name}"]\n' for name in names)
    (directory / "hosts.toml").write_text(f'server = "{end}"\n{tables}')


def test_a_mirror_is_asked_first_and_told_for_whom(store: Store, registry: HostileRegistry, elsewhere: HostileRegistry) -> None:
    """The registry itself is asked for what the mirror does not have, and for nothing else."""
    first, second = layer("first"), layer("second")
    registry.put_image("t/x", "1", [first, second], {})
    elsewhere.put_image("t/x", "1", [first, second], {})
    _hosts(store, "r.example", elsewhere, server=registry)
    elsewhere.misbehave(digest(second[0]), refuse(404))
    assert store.images.pull("r.example/t/x:1").tags == ("r.example/t/x:1",)
    assert all(asked.path.endswith("?ns=r.example") for asked in elsewhere.asked)
    assert [asked.path for asked in registry.asked] == [f"/v2/t/x/blobs/{digest(second[0])}"]


def test_a_mirror_that_is_away_is_passed_over(store: Store, registry: HostileRegistry) -> None:
    """What is said is what the registry itself says."""
    registry.put_image("t/x", "1", [_SMALL], {})
    _hosts(store, "r.example", "http://127.0.0.1:1", server=registry)
    assert store.images.pull("r.example/t/x:1").tags == ("r.example/t/x:1",)
    with pytest.raises(NotFound, match=f"r.example/t/none:1: manifests/1 on {registry.host}: HTTP 404"):
        store.images.pull("r.example/t/none:1")


# -- names


@pytest.mark.parametrize(
    "text", ["app", "app:latest", "library/app", "docker.io/app", "docker.io/library/app:latest", "index.docker.io/app"]
)
def test_a_short_name_is_one_of_docker_io(text: str, store: Store, registry: HostileRegistry) -> None:
    """Pulled, listed and found by its whole name, as a kubelet expects it."""
    registry.put_image("library/app", "latest", [_SMALL], {})
    manifest = digest(registry.answer("/v2/library/app/manifests/latest")[1])  # type: ignore[index]
    _hosts(store, "docker.io", server=registry)
    image = store.images.pull(text)
    assert image.tags == ("docker.io/library/app:latest",)
    assert image.digests == (f"docker.io/library/app@{manifest}",)
    for name in ("app", "docker.io/library/app", "docker.io/app:latest", f"app@{manifest}", f"app:other@{manifest}"):
        assert store.images.find(name) == image
    assert store.images.find("app:other") is None
    assert store.images.find(f"{registry.host}/library/app") is None


def test_an_image_is_found_by_every_name_it_was_pulled_by(store: Store, registry: HostileRegistry) -> None:
    """By tag: tag and digest. By digest, with or without a tag: the digest alone, as a kubelet expects it."""
    by_tag = registry.put_image("t/x", "1", [_SMALL], {})
    manifest = digest(registry.answer("/v2/t/x/manifests/1")[1])  # type: ignore[index]
    name = f"{registry.host}/t/x"
    for pulled in (f"{name}@{manifest}", f"{name}:9@{manifest}"):
        image = store.images.pull(pulled)
        assert (image.tags, image.digests) == ((), (f"{name}@{manifest}",))
        assert store.images.find(pulled) == image
    assert store.images.find(by_tag) is None
    image = store.images.pull(by_tag)
    assert (image.tags, image.digests) == ((by_tag,), (f"{name}@{manifest}",))
    for text in (by_tag, f"{name}@{manifest}", f"{name}:9@{manifest}", image.id, image.id[7:], image.id[7:20]):
        assert store.images.find(text) == image
    assert store.images.find(f"{name}@sha256:{'0' * 64}") is None
    assert [found.id for found in store.images.all()] == [image.id]


def test_a_tag_names_the_image_that_had_it_last(store: Store, registry: HostileRegistry) -> None:
    """The earlier one stays by its digest until it is removed."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    old = store.images.pull(reference)
    registry.put_image("t/x", "1", [_SMALL], {"Env": ["new=1"]})
    new = store.images.pull(reference)
    assert store.images.find(reference) == new
    left = store.images.find(old.id)
    assert left is not None
    assert (left.tags, left.digests) == ((), old.digests)


def test_an_image_has_no_name_where_its_digest_lies(store: Store, registry: HostileRegistry) -> None:
    """What a digest names must have it."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    wrong = f"{registry.host}/t/x@sha256:{'4' * 64}"
    body = registry.answer("/v2/t/x/manifests/1")
    assert body is not None
    registry.misbehave("/manifests/sha256:4444", say(body[1], body[0]))
    with pytest.raises(Exception, match="what came has the digest"):
        store.images.pull(wrong)
    assert store.images.find(reference) is None
    assert store.left() == []


@pytest.mark.parametrize("text", ["", "x/UPPER", "x@sha256:1", "x:1:2", f"{LAYER_TYPE} "])
def test_a_malformed_name_asks_nobody(text: str, store: Store) -> None:
    """InvalidArgument by its field, for pulling and for finding."""
    with pytest.raises(InvalidArgument, match=r"image\.image"):
        store.images.pull(text)
    with pytest.raises(InvalidArgument, match=r"image\.image"):
        store.images.find(text)


def test_an_image_whose_layer_has_gone_is_not_served(store: Store, registry: HostileRegistry) -> None:
    """After a restart it is not listed, and the next pull brings what is missing alone."""
    second = layer("second")
    reference = registry.put_image("t/x", "1", [_SMALL, second], {})
    image = store.images.pull(reference)
    store.snapshotter.remove_layer(image.chain_ids[1])
    store.reopen()
    assert store.images.all() == []
    assert store.images.pull(reference).chain_ids == image.chain_ids


def test_a_configuration_that_the_disk_has_damaged_is_fetched_again(store: Store, registry: HostileRegistry) -> None:
    """And nothing else of the image."""
    reference = registry.put_image("t/x", "1", [_SMALL], {})
    image = store.images.pull(reference)
    (store.directory / "content" / "blobs" / image.id.replace(":", "/")).write_bytes(b"{}")
    registry.behave()
    assert store.images.pull(reference) == image
    assert [asked.path for asked in registry.asked] == ["/v2/t/x/manifests/1", f"/v2/t/x/blobs/{image.id}"]
