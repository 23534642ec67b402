"""The warm service behind the executables: whoever calls decides, nothing is lost with it, and it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cni_plugins.install import install
from cni_plugins.service import server
from runtime_core.kernel import syscalls
from runtime_core.testing.tools import need

_PR_CAPBSET_DROP, _CAP_SYS_BOOT = 24, 22
_ROOT = Path(__file__).parents[3]
#: A plugin that tells where it runs, and waits or dies as its configuration says.
_PROBE = """
import json, os, signal, subprocess
def _tell(request):
    with open("/proc/self/status") as file:
        umask = next(line.split()[1] for line in file if line.startswith("Umask"))
    names = {"net", "mnt"}
    print("said on standard error", file=__import__("sys").stderr, flush=True)
    return {
        "parent": os.getppid(), "cwd": os.getcwd(), "umask": umask, "environment": dict(os.environ), "version": VERSION,
        "namespaces": {name: os.stat(f"/proc/self/ns/{name}").st_ino for name in names}, "root": sorted(os.listdir("/")),
        "length": len(json.dumps(request.config)), "files": subprocess.check_output(["ls", "/proc/self/fd"], text=True).split(),
    }
def _mark(request, verb):
    with open(request.config["diary"], "a") as file:
        file.write(f"{verb} {os.getpid()} {os.getppid()}\\n")
def add(request):
    _mark(request, "ADD")
    if request.config.get("wait"):
        signal.pause()
    if request.config.get("die"):
        os.kill(os.getpid(), 9)
    return {"dns": {"domain": json.dumps(_tell(request))}}
def delete(request):
    _mark(request, "DEL")
    if request.config.get("die") and os.getppid() == SERVICE():
        os.kill(os.getpid(), 9)
def check(request):
    raise ValueError("odd")
def gc(request):
    pass
def status(request):
    pass
def command_line(arguments):
    print("command", *arguments)
    return 3
def SERVICE():
    with open(LOCK) as file:
        return int(file.read())
"""


class Node:
    """A bin directory with the plugin `probe`, and its service."""

    def __init__(self, directory: Path, *, script: bool) -> None:
        self.directory, self.socket = directory, directory / "run" / "service.sock"
        (directory / "lib").mkdir()
        self.write("1")
        self.settings = {
            "modules": {"probe": "service_probe"}, "packet_filter": "", "path": [str(directory / "lib")],
            "socket": str(self.socket), "key": "test", "idle": 60, "script": script,
        }  # fmt: skip
        self.program = directory / "bin" / "probe"
        install(directory / "bin", overwrite=False, settings=self.settings)

    def write(self, version: str) -> None:
        code = f"VERSION = {version!r}\nLOCK = {str(self.socket) + '.lock'!r}\n{_PROBE}"
        (self.directory / "lib" / "service_probe.py").write_text(code)

    def call(
        self, verb: str, *, service: str = "", stdin: bytes | None = None, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """To the end of its output, which a service that holds the caller's pipes would put off."""
        popen = {key: more.pop(key) for key in ("cwd", "preexec_fn", "umask") if key in more}
        environment = self.environment(verb, TRIVET_CNI_SERVICE=service)
        return subprocess.run(
            [self.program], input=self.config(**more) if stdin is None else stdin, env=environment, capture_output=True,
            timeout=30, check=False, **popen,
        )  # fmt: skip

    def environment(self, verb: str, **more: str) -> dict[str, str]:
        parameters = {
            "PATH": os.environ["PATH"],
            "CNI_CONTAINERID": "c1",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": "/proc/self/ns/net",
            "CNI_PATH": "/nowhere",
        }
        return {"CNI_COMMAND": verb, **parameters, **more}

    def config(self, **more: Any) -> bytes:
        common = {"cniVersion": "1.1.0", "name": "net", "type": "probe", "diary": str(self.directory / "diary")}
        return json.dumps({**common, **more}).encode()

    def be_patient(self, to_take: int, to_answer: int) -> None:
        """From now on, and for so many seconds."""
        self.settings["patience"] = (to_take, to_answer)
        install(self.directory / "bin", overwrite=False, settings=self.settings)

    def facts(self, **more: Any) -> dict[str, Any]:
        done = self.call("ADD", **more)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(json.loads(done.stdout)["dns"]["domain"])  # type: ignore[no-any-return]

    def service(self) -> int:
        return int(Path(f"{self.socket}.lock").read_text())

    def start(self) -> int:
        """By a call, as on a node."""
        self.call("STATUS")
        _until(self.socket.exists, "the service listens")
        return self.service()

    def diary(self) -> list[list[str]]:
        path = self.directory / "diary"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def stop(self) -> None:
        if self.socket.exists():
            os.kill(self.service(), signal.SIGTERM)
            _until(lambda: not self.socket.exists(), "the service has gone")


@pytest.fixture(params=[False, True], ids=["machine code", "script"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path, script=request.param)
    yield node
    node.stop()


def test_the_first_call_starts_it_and_the_next_ones_use_it(node: Node) -> None:
    """One service for all; the socket is its owner's alone, in a directory that is."""
    assert node.facts()["parent"] == os.getpid()
    _until(node.socket.exists, "the service listens")
    service = node.service()
    assert {node.facts()["parent"] for _time in range(4)} == {service}
    assert (node.socket.stat().st_mode & 0o777, node.socket.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("way", ["environment", "installation"])
def test_it_can_be_switched_off(node: Node, way: str) -> None:
    """By TRIVET_CNI_SERVICE=off for a call, by --no-service for all."""
    if way == "installation":
        install(node.directory / "bin", overwrite=False, settings={**node.settings, "socket": ""})
    assert node.facts(service="off" if way == "environment" else "")["parent"] == os.getpid()
    assert not node.socket.parent.exists()


@pytest.mark.parametrize(
    ("verb", "stdin"),
    [("VERSION", None), ("ADD", None), ("DEL", None), ("CHECK", None), ("STATUS", None), ("GC", None), ("MOVE", None), ("", None)]
    + [("ADD", text) for text in (b"", b"[1]", b"{", b'{"cniVersion": "9.0.0", "name": "x"}', b'{"name": "../x"}', b"\0\0", b"[" * 99999)],
)  # fmt: skip
def test_its_answers_are_those_of_the_plugin_alone(node: Node, verb: str, stdin: bytes | None) -> None:
    """Byte for byte, with exit status and standard error."""
    node.start()
    alone, warm = node.call(verb, stdin=stdin, service="off"), node.call(verb, stdin=stdin)
    assert warm.returncode == alone.returncode
    assert warm.stderr == alone.stderr
    if verb == "ADD" and stdin is None:  # its text says who has served it
        assert json.loads(warm.stdout).keys() == json.loads(alone.stdout).keys()
    else:
        assert warm.stdout == alone.stdout


def test_the_callers_surroundings_are_the_plugins(node: Node, tmp_path: Path) -> None:
    """Network and mount namespace, working directory, umask and the whole environment; nothing of the service's."""
    service = node.start()
    (tmp_path / "here").mkdir()

    def elsewhere() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)

    facts = node.facts(preexec_fn=elsewhere, cwd=tmp_path / "here", umask=0o027)
    alone = node.facts(service="off", cwd=tmp_path / "here", umask=0o027)
    assert facts["parent"] == service
    for kind in ("net", "mnt"):
        assert facts["namespaces"][kind] not in (alone["namespaces"][kind], os.stat(f"/proc/{service}/ns/{kind}").st_ino)
    assert (facts["cwd"], facts["umask"], facts["root"]) == (alone["cwd"], alone["umask"], alone["root"])
    assert facts["environment"] == {**alone["environment"], "TRIVET_CNI_SERVICE": ""}


def test_a_callers_root_is_the_plugins(node: Node, tmp_path: Path) -> None:
    """Who has changed its root meets its own files."""
    service = node.start()
    root = tmp_path / "root"
    root.mkdir()

    def confined() -> None:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
        for name in os.listdir("/"):
            if name not in ("lost+found",) and os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}"):
                (root / name).mkdir()
                syscalls.mount(f"/{name}", str(root / name), "", syscalls.MS_BIND | syscalls.MS_REC)
            elif os.path.islink(f"/{name}"):
                (root / name).symlink_to(os.readlink(f"/{name}"))
        (root / "only-here").touch()
        os.chroot(root)
        os.chdir("/")

    facts = node.facts(preexec_fn=confined)
    assert facts["parent"] == service
    assert "only-here" in facts["root"]


def test_what_a_plugin_starts_has_no_descriptor_of_the_services(node: Node) -> None:
    """Standard ones, and the directory that it is reading."""
    node.start()
    assert node.facts()["files"] == ["0", "1", "2", "3"]


def test_nothing_of_a_call_is_seen_by_the_next_one(node: Node, tmp_path: Path) -> None:
    """Which the same process may serve: more calls than there are processes, with other surroundings each."""
    node.start()
    alone = node.facts(service="off")
    (tmp_path / "here").mkdir()
    for number in range(12):
        changed = node.call("ADD", service=f"number {number}", cwd=tmp_path / "here", umask=0o077, preexec_fn=_elsewhere)
        assert changed.returncode == 0
        facts = node.facts()
        for fact in ("cwd", "umask", "namespaces", "files", "root"):
            assert facts[fact] == alone[fact]
        assert facts["environment"]["TRIVET_CNI_SERVICE"] == ""


def test_processes_serve_again(node: Node) -> None:
    """Several calls, few processes; none of them keeps the caller's network namespace afterwards."""
    service = node.start()
    for _time in range(12):
        node.facts(preexec_fn=lambda: syscalls.unshare(syscalls.CLONE_NEWNET))
    served = {int(pid) for _verb, pid, parent in node.diary() if int(parent) == service}
    assert len(served) < 12
    home = os.stat(f"/proc/{service}/ns/net").st_ino
    _until(lambda: {os.stat(f"/proc/{pid}/ns/net").st_ino for pid in served if _is_running(pid)} == {home}, "all are back")


def _elsewhere() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)


def test_a_large_configuration_goes_through(node: Node) -> None:
    """As the plugin alone takes it."""
    node.start()
    assert node.facts(padding="x" * 1_000_000)["length"] > 1_000_000


def test_who_has_fewer_rights_is_not_served(node: Node) -> None:
    """A root without one of the capabilities gets no more done than it could do itself: its call runs in its own process."""
    node.start()
    facts = node.facts(preexec_fn=lambda: syscalls.prctl(_PR_CAPBSET_DROP, _CAP_SYS_BOOT))
    assert facts["parent"] == os.getpid()


@pytest.mark.parametrize("way", ["-pf --mount-proc", "--uts", "--ipc", "--cgroup", "--time", "-Ur"])
def test_who_is_in_another_namespace_is_not_served(node: Node, way: str) -> None:
    """As a runtime in a container: it meets other processes, names and files in /proc than the service would."""
    service = node.start()
    unshare = [need("unshare", "util-linux"), *way.split()]
    for verb in ("ADD", "CHECK", "DEL"):
        served, alone = (
            subprocess.run(
                [*unshare, node.program], input=node.config(), env=node.environment(verb, TRIVET_CNI_SERVICE=off),
                capture_output=True, check=False, timeout=30,
            )
            for off in ("", "off")
        )  # fmt: skip
        assert (served.returncode, served.stderr) == (alone.returncode, alone.stderr)
    assert [verb for verb, _pid, _parent in node.diary()] == ["ADD", "ADD", "DEL", "DEL"]
    assert service not in {int(parent) for _verb, _pid, parent in node.diary()}


def test_a_service_that_hangs_is_not_waited_for(node: Node) -> None:
    """All of it stopped before it takes the call: it runs in the caller, and nothing is done when the service goes on."""
    node.be_patient(1, 1)
    service = node.start()
    processes = [service, *_children(service)]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert node.facts()["parent"] == os.getpid()
        assert node.call("DEL").returncode == 0
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
    _until(lambda: node.facts()["parent"] == service, "it serves again")
    diary = [(verb, int(parent) == service) for verb, _pid, parent in node.diary()]
    assert diary[:2] == [("ADD", False), ("DEL", False)]
    assert set(diary[2:]) <= {("ADD", True), ("ADD", False)}


def test_a_call_that_hangs_in_the_service_is_the_callers_to_try_again(node: Node) -> None:
    """Code 11, since nobody knows how far it came; the process that had it has ended, and DEL was not called unasked."""
    node.be_patient(10, 1)
    node.start()
    done = node.call("ADD", wait=True)
    error = json.loads(done.stdout)
    assert (done.returncode, error["code"]) == (1, 11)
    assert "the service took ADD and has not answered within 1 s" in error["msg"]
    _until(lambda: not _is_running(int(node.diary()[0][1])), "the plugin has ended with it")
    assert [line[0] for line in node.diary()] == ["ADD"]


@pytest.mark.parametrize(("said", "is_run"), [(b"", True), (b"+", False), (b"+\0\0", False)])
def test_what_listens_and_is_no_service_is_not_waited_for(node: Node, said: bytes, is_run: bool) -> None:
    """It says nothing, or that it has the call, and no more."""
    node.be_patient(1, 1)
    node.socket.parent.mkdir(mode=0o700)
    held: list[socket.socket] = []

    def answer(listener: socket.socket) -> None:
        held.append(listener.accept()[0])
        held[0].sendall(said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(node.socket))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        done = node.call("ADD")
        thread.join()
        for connection in held:
            connection.close()
    node.socket.unlink()
    assert (done.returncode == 0) == is_run == bool(node.diary())
    assert is_run or json.loads(done.stdout)["code"] == 11


def test_a_queue_that_is_full_is_not_waited_for(node: Node) -> None:
    """Of a service that takes no more connections."""
    node.be_patient(1, 1)
    node.socket.parent.mkdir(mode=0o700)
    with ExitStack() as closing:
        listener = closing.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(node.socket))
        listener.listen(0)
        while True:
            waiting = closing.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            try:
                waiting.connect(str(node.socket))
            except BlockingIOError:
                break
        assert node.facts()["parent"] == os.getpid()
    node.socket.unlink()


def test_another_user_is_not_served(node: Node) -> None:
    """It does not even reach the socket."""
    service = node.start()
    for path in (node.directory, *node.directory.parents):
        if path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    (node.directory / "diary").touch(0o666)
    (node.directory / "diary").chmod(0o666)
    if not os.access(sys.base_prefix, os.X_OK) or str(sys.base_prefix).startswith("/root"):
        pytest.skip("needs an interpreter that another user may run")
    facts = node.facts(preexec_fn=lambda: os.setuid(65534))
    assert facts["parent"] not in (service, 0)


def test_another_installations_service_sends_a_call_back(node: Node) -> None:
    """By mistake on one socket: the call runs in its own process."""
    node.start()
    install(node.directory / "bin", overwrite=False, settings={**node.settings, "key": "other"})
    assert node.facts()["parent"] == os.getpid()


def test_code_that_has_changed_is_not_used(node: Node) -> None:
    """The call runs the new code, and the old service ends; the next one starts another."""
    old = node.start()
    node.write("two")
    facts = node.facts()
    assert (facts["version"], facts["parent"]) == ("two", os.getpid())
    _until(lambda: not _is_running(old), "the old service ends")
    node.start()
    facts = node.facts()
    assert (facts["version"], facts["parent"]) == ("two", node.service())


def test_many_first_calls_make_one_service(node: Node) -> None:
    """All are answered, whoever served them."""
    running = [
        subprocess.Popen([node.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=node.environment("STATUS"))
        for _number in range(12)
    ]
    for process in running:
        process.communicate(node.config())
    assert [process.returncode for process in running] == [0] * 12
    _until(node.socket.exists, "the service listens")
    service = node.service()
    _until(lambda: _services(node) == {service}, "only one is left")


def test_a_killed_service_is_replaced(node: Node) -> None:
    """Its socket stays behind: the call runs in its own process, and the service of the next one is another."""
    old = node.start()
    os.kill(old, signal.SIGKILL)
    _until(lambda: not _is_running(old), "it is dead")
    assert node.facts()["parent"] == os.getpid()
    _until(lambda: node.service() != old, "another serves")
    _until(lambda: node.facts()["parent"] == node.service(), "it answers")
    assert _services(node) == {node.service()}


def test_a_call_that_dies_in_the_middle_of_add_is_taken_down(node: Node) -> None:
    """The caller is told to try again later (code 11), and DEL has been called."""
    node.start()
    done = node.call("ADD", die=True)
    error = json.loads(done.stdout)
    assert (done.returncode, error["code"], "died in the middle" in error["msg"]) == (1, 11, True)
    assert [line[0] for line in node.diary()] == ["ADD", "DEL"]


def test_a_call_that_dies_in_the_middle_of_del_is_run_again(node: Node) -> None:
    """In the caller's own process; the caller does not notice."""
    service = node.start()
    done = node.call("DEL", die=True)
    assert (done.returncode, done.stdout) == (0, b"")
    assert [(verb, int(parent) == service) for verb, _pid, parent in node.diary()] == [("DEL", True), ("DEL", False)]


def test_a_killed_caller_takes_its_call_along(node: Node) -> None:
    """As an executable's would end: the DEL that comes next is not overtaken by the ADD."""
    node.start()
    process = subprocess.Popen([node.program], stdin=subprocess.PIPE, env=node.environment("ADD"))
    assert process.stdin
    process.stdin.write(node.config(wait=True))
    process.stdin.close()
    _until(lambda: bool(node.diary()), "the plugin runs")
    served = int(node.diary()[0][1])
    assert _is_running(served)
    process.kill()
    process.wait()
    _until(lambda: not _is_running(served), "the plugin has ended with it")


def test_it_ends_when_nobody_calls(node: Node) -> None:
    """After its idle time; the next call starts another."""
    install(node.directory / "bin", overwrite=False, settings={**node.settings, "idle": 0.3})
    service = node.start()
    _until(lambda: not _is_running(service), "it ends")
    assert not node.socket.exists()
    assert node.start() != service


def test_it_ends_when_its_socket_is_gone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could call it any more, though it was told to stay for ever; another one's socket is left alone."""
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.1)
    monkeypatch.syspath_prepend(node.directory / "lib")
    pid = os.fork()
    if pid == 0:
        try:
            server.serve(node.settings, str(node.socket), 0)
        finally:
            os._exit(0)
    _until(node.socket.exists, "the service listens")
    node.socket.unlink()
    node.socket.write_text("another one's")
    os.waitpid(pid, 0)
    assert node.socket.read_text() == "another one's"
    node.socket.unlink()


def test_an_end_loses_no_call(node: Node) -> None:
    """Callers while services are told to end: every one is answered, once."""
    running = []
    for number in range(10):
        service = node.start()
        running += [
            subprocess.Popen([node.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=node.environment("ADD"))
            for _number in range(3)
        ]
        for process in running[-3:]:
            assert process.stdin
            process.stdin.write(node.config(number=number))
        os.kill(service, signal.SIGTERM)
        _until(lambda gone=service: not _is_running(gone), "it ends")  # type: ignore[misc]
        for process in running[-3:]:
            assert process.communicate()[0]
    assert {process.returncode for process in running} == {0}
    assert len([line for line in node.diary() if line[0] == "ADD"]) == 30


def test_trivet_cni_serve_is_found_by_its_executables(tmp_path: Path) -> None:
    """Both look up the same things; a second one is refused; SIGTERM ends it."""
    words = [sys.executable, "-m", "cni_plugins"]
    options = ["--socket", str(tmp_path / "run" / "s.sock")]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    subprocess.run([*words, "install", "--bin-dir", str(tmp_path), *options], env=environment, check=True, capture_output=True)
    with subprocess.Popen([*words, "serve", *options], env=environment, stdout=subprocess.PIPE) as service:
        assert service.stdout
        assert service.stdout.readline() == f"trivet-cni serves {tmp_path}/run/s.sock\n".encode()
        second = subprocess.run([*words, "serve", *options], env=environment, check=False, capture_output=True)
        assert (second.returncode, b"another service is there" in second.stderr) == (1, True)
        done = subprocess.run([tmp_path / "loopback"], env={"CNI_COMMAND": "VERSION"}, check=True, capture_output=True)
        assert "1.1.0" in json.loads(done.stdout)["supportedVersions"]
        service.terminate()
    assert service.returncode == 0
    assert os.listdir(tmp_path / "run") == ["s.sock.lock"]


def test_arguments_are_a_plugins_own_command_line(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """`dhcp daemon` is one; such a plugin is installed as a script."""
    monkeypatch.syspath_prepend(node.directory / "lib")
    install(node.directory / "bin", overwrite=False, settings=node.settings)
    monkeypatch.delitem(sys.modules, "service_probe")
    done = subprocess.run([node.program, "daemon", "-x"], env={}, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (3, b"command daemon -x\n")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _services(node: Node) -> set[int]:
    """Processes that are no one's child in the group of processes that hold this socket's lock."""
    inode = Path(f"{node.socket}.lock").stat().st_ino
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if any(descriptor.stat().st_ino == inode for descriptor in (entry / "fd").iterdir()):
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _until(holds: Callable[[], bool], what: str) -> None:
    """Of what no event tells: looked for until it is so."""
    deadline = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(0.01)
