"""The contract of `trivet.image.verifier`: may this image run here?"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class ImageVerifier(Protocol):
    """The contract: runtime_core/testing/image_verifier_contract.py."""

    def verify(self, reference: str, manifest_digest: str, namespace: str) -> None:
        """Raise PermissionDenied, naming the rule, when the image may not run."""
        ...
