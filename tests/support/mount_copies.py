"""Programs that hold copies of this test's mounts: mount namespaces made and dropped all the while, or one that stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: children that clone the mount namespace, keep the copy to themselves for some milliseconds, and go
_STORM = """
import os, random, time
from runtime_core.kernel import syscalls
print("on", flush=True)
while True:
    child = os.fork()
    if child == 0:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        time.sleep(random.uniform(0, 0.03))
        os._exit(0)
    os.waitpid(child, 0)
"""
_COPY = """
import os, sys
from runtime_core.kernel import syscalls
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
bound, elsewhere, *paths = sys.argv[1:]
if bound:
    syscalls.mount(bound, elsewhere, "", syscalls.MS_BIND)
opened = [os.open(path, os.O_RDONLY) for path in paths]
syscalls.set_process_name("holder")
print("on", flush=True)
sys.stdin.read()
"""


@contextmanager
def storm(programs: int = 4) -> Iterator[None]:
    """Within the block so many copies of this process's mounts come and go at once, as where containers start."""
    running = [_start(_STORM) for _number in range(programs)]
    try:
        yield
    finally:
        for program in running:
            os.killpg(program.pid, 9)
            _end(program)


@contextmanager
def copy(*opened: str, bound: tuple[str, str] = ("", "")) -> Iterator[int]:
    """The pid of a program "holder" that has a copy of this process's mounts to itself, and in it these paths open, or what is
    mounted at the first of `bound` mounted at the second too.
    """
    program = _start(_COPY, *bound, *opened)
    try:
        yield program.pid
    finally:
        program.kill()
        _end(program)


def _start(text: str, *arguments: str) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert program.stdout is not None
    assert program.stdout.readline() == "on\n"
    return program


def _end(program: subprocess.Popen[str]) -> None:
    program.communicate()
