"""The contract suite of `trivet.image.verifier`; who writes a driver subclasses it and overrides `verifier`.

A driver that refuses some images also overrides `allowed` and `refused`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime_core.errors import PermissionDenied
from runtime_core.interfaces.image_verifier import ImageVerifier

#: reference, manifest digest, namespace
Image = tuple[str, str, str]
_DIGEST = "sha256:" + "ab" * 32


class ImageVerifierContract:
    #: images that the driver under test lets run, and such that it refuses
    allowed: tuple[Image, ...] = (
        ("registry.example/app:1", _DIGEST, "default"),
        (f"registry.example/app@{_DIGEST}", _DIGEST, ""),
    )
    refused: tuple[Image, ...] = ()

    @pytest.fixture
    def verifier(self) -> ImageVerifier:
        raise NotImplementedError("override verifier")

    def test_it_is_a_verifier(self, verifier: ImageVerifier) -> None:
        """It has what the Protocol names, and its class says what it is."""
        assert isinstance(verifier, ImageVerifier)
        assert type(verifier).__doc__

    def test_what_may_run(self, verifier: ImageVerifier) -> None:
        """Nothing is raised, however often it is asked."""
        for image in self.allowed * 2:
            verifier.verify(*image)

    def test_what_may_not_run(self, verifier: ImageVerifier) -> None:
        """PermissionDenied, with a message, at every asking."""
        for image in self.refused * 2:
            with pytest.raises(PermissionDenied, match=r"."):
                verifier.verify(*image)

    def test_from_many_threads(self, verifier: ImageVerifier) -> None:
        """Pods are created at once: each gets its own answer."""

        def is_allowed(image: Image) -> bool:
            try:
                verifier.verify(*image)
            except PermissionDenied:
                return False
            return True

        images = (*self.allowed, *self.refused) * 8
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(is_allowed, images)) == [image in self.allowed for image in images]
