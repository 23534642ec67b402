"""What every program says to a person in a terminal: its version, what it lacks, and nothing when nobody reads it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest

import cni_plugins.__main__
import cri.__main__
import csi_driver.__main__
import trivet.__main__
from runtime_core import command_line
from runtime_core.errors import DeadlineExceeded, FailedPrecondition, NotFound, PermissionDenied, Unavailable
from runtime_core.log import Log
from runtime_core.version import VERSION
from trivet.commands import volumes

_ROOT = Path(__file__).parents[2]
_PROGRAMS = {"trivet": trivet, "trivet-cri": cri, "trivet-cni": cni_plugins, "trivet-csi": csi_driver}


def _python(script: str, *, stdout: int, buffered: bool = True) -> tuple[int, str]:
    """(exit status, standard error) of a program that writes to `stdout`."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    environment |= {} if buffered else {"PYTHONUNBUFFERED": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", script], stdout=stdout, stderr=subprocess.PIPE, env=environment, cwd=_ROOT, timeout=60, check=False
    )
    return ended.returncode, ended.stderr.decode()


@contextmanager
def _unread_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


def _program(name: str, *arguments: str) -> str:
    return f"""import sys
sys.argv = {[name, *arguments]!r}
from {_PROGRAMS[name].__name__}.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("name", _PROGRAMS)
def test_the_version_is_told(name: str) -> None:
    """By every program, and it is what the package was installed as."""
    told = subprocess.run(
        [sys.executable, "-c", _program(name, "--version")], capture_output=True, text=True, cwd=_ROOT, timeout=60, check=True
    )
    assert (told.stdout, told.stderr) == (f"{name} {VERSION}\n", "")
    assert version("trivet") == VERSION
    assert re.search(r"attr = .runtime_core.version.VERSION.", (_ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *((name, (option,)) for name in _PROGRAMS for option in ("--help", "--version")),
        ("trivet", ("plugins",)),
        ("trivet-cri", ("serve", "--help")),
        ("trivet-cni", ("leases", "--data-dir", "/nowhere")),
        ("trivet-cni", ("explain", "EXAMPLE")),
    ],
)
def test_a_reader_that_has_gone(name: str, arguments: tuple[str, ...], buffered: bool, tmp_path: Path) -> None:
    """`... | head -1`: no word, and the status of SIGPIPE but where argparse itself looks away."""
    (tmp_path / "x.conflist").write_text('{"cniVersion": "1.0.0", "name": "x", "plugins": [{"type": "loopback"}]}')
    arguments = tuple(str(tmp_path / "x.conflist") if one == "EXAMPLE" else one for one in arguments)
    with _unread_pipe() as writer:
        status, said = _python(_program(name, *arguments), stdout=writer, buffered=buffered)
    assert said == ""
    assert status == 141 or (not buffered and arguments[-1].startswith("--"))


@pytest.mark.parametrize("buffered", [True, False])
def test_output_that_cannot_be_written(buffered: bool) -> None:
    """A full disk is a failure, told once and in one line."""
    with open("/dev/full", "wb") as full:
        status, said = _python(_program("trivet", "plugins"), stdout=full.fileno(), buffered=buffered)
    assert status == 1
    assert re.fullmatch(r"trivet: .*No space left on device\n", said)


def test_without_any_output_it_works() -> None:
    """As under `>&-`."""
    closed = "import os; os.close(1); os.execv(sys.executable, [sys.executable, '-c', script])"
    status, said = _python(f"import sys; script = {_program('trivet', 'plugins')!r}; {closed}", stdout=subprocess.DEVNULL)
    assert (status, said) == (0, "")


def test_a_broken_pipe_of_something_else_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A peer that hangs up is a failure like any other: only the reader of the output may end a program in silence."""

    def work() -> int:
        raise BrokenPipeError(32, "Broken pipe")

    assert command_line.run("program", work) == 1
    assert capsys.readouterr().err == "program: failed: [Errno 32] Broken pipe\n"


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (NotFound("it is not there"), 1, "program: it is not there\n"),
        (OSError(28, "No space left on device", "/x"), 1, "program: failed: [Errno 28] No space left on device: '/x'\n"),
        (KeyboardInterrupt(), 130, "program: interrupted\n"),
    ],
)
def test_how_a_program_ends(failure: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, never a traceback."""

    def work() -> int:
        raise failure

    assert command_line.run("program", work) == status
    assert capsys.readouterr().err == said


def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)


@pytest.mark.parametrize(
    ("name", "main", "arguments", "why"),
    [
        ("trivet-cri", cri.__main__._main, ["serve"], "namespaces, mounts and cgroups"),
        ("trivet-csi", csi_driver.__main__._main, ["serve"], "mounts volumes"),
        ("trivet-cni", cni_plugins.__main__.main, ["serve"], "network namespaces"),
        ("trivet", trivet.__main__.main, ["demo"], "namespaces, mounts and cgroups"),
    ],
)
def test_what_needs_root_says_so_and_why(
    name: str, main: Callable[[], int], arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Before anything was tried."""
    _nobody(monkeypatch)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    assert command_line.run(name, main) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{name}: {arguments[0]} ") and said.endswith("; that needs root, and you are uid 65534\n")
    assert why in said


def test_a_denied_permission_may_lack_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As `trivet-cni install` into a directory of root's; root itself is told nothing of the kind."""

    def work() -> int:
        raise PermissionDenied("installing into /opt/cni/bin")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    command_line.run("program", work)
    _nobody(monkeypatch)
    command_line.run("program", work)
    assert capsys.readouterr().err.splitlines() == [
        "program: installing into /opt/cni/bin",
        "program: installing into /opt/cni/bin; that needs root, and you are uid 65534",
    ]


@pytest.mark.parametrize("kind", ["nothing", "file", "directory", "deaf"])
def test_volumes_without_a_driver(kind: str, tmp_path: Path) -> None:
    """Which socket was asked, and how the driver is started there."""
    path = tmp_path / "csi.sock"
    with socket.socket(socket.AF_UNIX) as deaf:
        if kind == "file":
            path.touch()
        elif kind == "directory":
            path.mkdir()
        elif kind == "deaf":
            deaf.bind(str(path))
        with pytest.raises(Unavailable, match="trivet-csi is not running at") as refused:
            volumes.list_volumes(f"unix://{path}", False)
    assert f"trivet-csi serve --endpoint unix://{path}" in str(refused.value)


def test_volumes_asked_of_somebody_else(tmp_path: Path) -> None:
    """A gRPC server that knows nothing of it, such as another driver or trivet-cri."""
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"unix://{tmp_path}/other.sock")
    server.start()
    try:
        with pytest.raises(FailedPrecondition, match=f"who answers at {tmp_path}/other.sock is not trivet-csi"):
            volumes.list_volumes(f"unix://{tmp_path}/other.sock", True)
    finally:
        server.stop(None).wait()


def test_a_log_that_nobody_takes_costs_nothing() -> None:
    """A daemon behind `2>&1 | head` or on a full disk works on."""
    with _unread_pipe() as writer, open("/dev/null", "w") as null, open(os.dup(writer), "w") as stream:
        log = Log(stream=stream)
        for _number in range(3):
            log.error("something", of="x" * 70_000)
        os.dup2(null.fileno(), stream.fileno())  # so that the rest of it can be closed


def test_volumes_of_a_server_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait is bounded, and told."""
    monkeypatch.setattr(volumes, "_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/hangs.sock")
        listener.listen(8)
        with pytest.raises(DeadlineExceeded, match=r"hangs.sock has not answered for 0.2 s"):
            volumes.list_volumes(f"unix://{tmp_path}/hangs.sock", False)
