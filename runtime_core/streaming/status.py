"""How a remote command ended, as metav1.Status (k8s.io/apimachinery) on the error channel. No I/O."""

from __future__ import annotations

import json


def success() -> bytes:
    """It ended with 0."""
    return _encode({"metadata": {}, "status": "Success"})


def exited(code: int) -> bytes:
    """It ended with `code`, 1 to 255: clients take it out of `details`."""
    return _encode(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


def failed(message: str) -> bytes:
    """It could not be run, or not to its end."""
    return _encode({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500})


def _encode(status: dict[str, object]) -> bytes:
    return json.dumps(status).encode()
