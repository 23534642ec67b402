"""Images whose configuration says what cannot be: listed as the others are, refused by name where it matters."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cri.api.v1 import api_pb2 as api
from tests.support.cri_client import Client
from trivet.demo import image as demo_image
from trivet.demo.node import DemoNode
from trivet.demo.registry import Registry

_USERS = {
    "4294967296": None, "2147483648": None, "9" * 5000: None, "²": None, "١٢": None, "-1": None, "1e3": None, "0x0": None,
    "12": 12, "007": 7, "12:34": 12, "0": 0,
}  # fmt: skip


class _Images(Client):
    def __init__(self, node: DemoNode, registry: Registry) -> None:
        self._registry, self._layers = registry, [demo_image.build_layer()]
        self.images = node.images()
        super().__init__(node, self.image("good", {}))

    def image(self, tag: str, config: dict[str, Any], *more: bytes) -> str:
        layers = [*self._layers, *((layer, layer, "application/vnd.oci.image.layer.v1.tar") for layer in more)]
        reference = self._registry.put_image("t/odd", tag, layers, {"Env": ["PATH=/bin"], **config})
        self.images.PullImage(api.PullImageRequest(image=api.ImageSpec(image=reference)))
        return reference


@pytest.fixture(scope="module")
def client() -> Iterator[_Images]:
    registry, node = Registry(), DemoNode()
    try:
        node.start()
        yield _Images(node, registry)
    finally:
        node.close()
        registry.close()


def test_one_image_never_fails_the_list(client: _Images) -> None:
    """With a uid where there is one; what cannot be one is told as a name, which a kubelet takes for no number."""
    pulled = {client.image(f"u{number}", {"User": user}): user for number, user in enumerate(_USERS)}
    listed = {image.repo_tags[0]: image for image in client.images.ListImages(api.ListImagesRequest()).images}
    assert set(pulled) | {client.reference} == set(listed)
    for reference, user in pulled.items():
        status = client.images.ImageStatus(api.ImageStatusRequest(image=api.ImageSpec(image=reference), verbose=True)).image
        for image in (listed[reference], status):
            found = image.uid.value if image.HasField("uid") else None
            assert (found, image.username) == (_USERS[user], "" if _USERS[user] is not None else user)


@pytest.mark.parametrize("user", [user for user, uid in _USERS.items() if uid is None])
def test_a_user_that_cannot_be_is_refused_by_name(user: str, client: _Images, pod: str) -> None:
    """Where the container is made; digits of other scripts are no number."""
    image = client.image("refused", {"User": user})
    with pytest.raises(grpc.RpcError) as refused:
        client.create(pod, "true", image=image)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "image user" in refused.value.details()
    assert user[:32] in refused.value.details()


@pytest.mark.parametrize("user", ["0:١٢", "0:4294967296", "0:²"])
def test_a_group_that_cannot_be_is_refused_by_name(user: str, client: _Images, pod: str) -> None:
    """The same for the part behind the colon."""
    image = client.image("refused", {"User": user})
    with pytest.raises(grpc.RpcError, match="image user: group") as refused:
        client.create(pod, "true", image=image)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("signal", ["١٥", "²", "99999999999999999999", "9" * 5000, "RTMIN+١", "RTMAX-²"])
def test_a_stop_signal_that_cannot_be_is_refused_by_name(signal: str, client: _Images, pod: str) -> None:
    """Of the image."""
    image = client.image("refused", {"StopSignal": signal})
    with pytest.raises(grpc.RpcError, match="StopSignal") as refused:
        client.create(pod, "true", image=image)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def _layer(**files: str) -> bytes:
    """Names with "__" for "/"; a value that begins with "->" is a symlink's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("wh_", ".wh."))
            if text.startswith("->"):
                member.type, member.linkname = tarfile.SYMTYPE, text[2:]
                archive.addfile(member)
            else:
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


_WEB = _layer(etc__passwd="web:x:33:44::/:/bin/sh\n", lib__users="web:x:55:66::/:/bin/sh\n")
_NOTHING = _layer(other="x")


@pytest.mark.parametrize(
    ("layers", "uid"),
    [
        ([_WEB], 33), ([_WEB, _NOTHING], 33), ([_WEB, _layer(etc__other="x"), _NOTHING], 33),
        ([_WEB, _layer(wh_etc="")], None), ([_WEB, _layer(wh_etc=""), _layer(etc__other="x")], None),
        ([_WEB, _layer(etc__wh_passwd="")], None), ([_WEB, _layer(**{"etc__.wh..wh..opq": "", "etc__other": "x"}), _NOTHING], None),
        ([_WEB, _layer(etc__passwd="->../lib/users"), _NOTHING], 55), ([_WEB, _layer(etc__passwd="->/lib/users")], 55),
        ([_WEB, _layer(etc__passwd="->/nothing")], None), ([_WEB, _layer(wh_etc="", etc="->/lib", lib__passwd="web:x:77:1::/:\n")], 77),
    ],
)  # fmt: skip
def test_users_are_those_of_the_merged_layers(layers: list[bytes], uid: int | None, client: _Images, pod: str) -> None:
    """Not those of a file that a layer hides; a symlink leads through all layers."""
    image = client.image("layers", {"User": "web"}, *layers)
    if uid is None:
        with pytest.raises(grpc.RpcError, match="user 'web' is not in the image's /etc/passwd"):
            client.create(pod, "true", image=image)
    else:
        container = client.create(pod, "true", image=image)
        assert client.status(container).user.linux.uid == uid


def test_an_entrypoint_that_is_a_string_is_refused_when_it_is_pulled(client: _Images) -> None:
    """It would be taken for its first character."""
    with pytest.raises(grpc.RpcError, match=r"config\.Entrypoint is not a list") as refused:
        client.image("string", {"Entrypoint": "/bin/echo hi"})
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
