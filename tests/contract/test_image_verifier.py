"""Every installed trivet.image.verifier driver keeps its contract."""

from __future__ import annotations

import pytest

from runtime_core.errors import PermissionDenied
from runtime_core.interfaces.image_verifier import ImageVerifier
from runtime_core.registry import installed, load_driver
from runtime_core.testing.image_verifier_contract import ImageVerifierContract


@pytest.mark.parametrize("name", [driver.name for driver in installed("image.verifier")])
class TestImageVerifiers(ImageVerifierContract):
    @pytest.fixture
    def verifier(self, name: str) -> ImageVerifier:
        return load_driver("image.verifier", name)()  # type: ignore[no-any-return]


class _OnlyOurs:
    """A stranger's driver: images of one registry may run."""

    def verify(self, reference: str, manifest_digest: str, namespace: str) -> None:
        if not reference.startswith("ours.example/"):
            raise PermissionDenied(f"image {reference} is not of ours.example")


class TestStranger(ImageVerifierContract):
    """The suite can be taken by a driver that refuses."""

    allowed = (("ours.example/app:1", "sha256:" + "ab" * 32, "default"),)
    refused = (("theirs.example/app:1", "sha256:" + "ab" * 32, "default"),)

    @pytest.fixture
    def verifier(self) -> ImageVerifier:
        return _OnlyOurs()
