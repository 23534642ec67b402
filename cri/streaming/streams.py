"""What exec and attach have in common."""

from __future__ import annotations

from cri.api.v1 import api_pb2 as api
from cri.service import Service
from runtime_core.errors import FailedPrecondition, InvalidArgument
from runtime_core.sandbox.records import ContainerRecord, State


def check_streams(request: api.ExecRequest | api.AttachRequest) -> None:
    """InvalidArgument for a combination that CRI excludes (api.proto, ExecRequest)."""
    if request.tty and request.stderr:
        raise InvalidArgument("tty and stderr cannot both be true: a terminal has one output")
    if not (request.stdin or request.stdout or request.stderr):
        raise InvalidArgument("one of stdin, stdout and stderr must be true")


def running_container(service: Service, container_id: str) -> ContainerRecord:
    """FailedPrecondition when it does not run."""
    record = service.node.container(container_id)
    if record.state != State.RUNNING:
        raise FailedPrecondition(f"container {record.id} is {record.state.name.lower()}, not running")
    return record
