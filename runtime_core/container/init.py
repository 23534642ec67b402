"""The child's side of a container: from the fork to the exec of the program.

Nothing here imports, looks up a codec or asks NSS: after the root has changed, any file
that Python opened by name would be the container's.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket

from runtime_core.container import devices, messages, root_mount, rootfs, sysctls
from runtime_core.container.console import open_console
from runtime_core.container.credentials import Credentials, adjust_oom_score
from runtime_core.container.program import Program, chown_stdio, install_stdio
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import failpoint, namespaces, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime_core.container.request import CreateRequest

_OVERFLOW_ID = 65534  # what an id looks like that has no mapping


class Step:
    """Where a child is, so that its failure can say so."""

    __slots__ = ("doing",)

    def __init__(self) -> None:
        self.doing = "starting"


def run(channel: socket.socket, request: CreateRequest, joined: dict[str, int], made: set[str]) -> None:
    """In the forked init: set the container up, wait for START, execute. Never returns."""
    step = Step()
    try:
        _Setup(step, channel, request, made).run(joined)
    except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
        messages.send_failure(channel, error, step.doing)
    os._exit(127)


def run_intermediate(
    channel: socket.socket,
    parent: socket.socket,
    request: CreateRequest,
    joined: dict[str, int],
    made: set[str],
) -> None:
    """In a process between parent and init: prepare what comes from the host, enter the user namespace, fork the
    init as the parent's child and send its PID to `parent`. Never returns."""
    step = Step()
    try:
        _Setup(step, channel, request, made).run_intermediate(joined, parent)
    except Exception as error:  # noqa: BLE001  as above
        messages.send_failure(parent, error, step.doing)
        os._exit(127)
    os._exit(0)


def detach_from_parent(kept: set[int]) -> None:
    """Drop what a fork inherits from its parent: descriptors, signal handling, dumpability.

    The garbage collector stops: objects of the parent that it would find close descriptors by number.
    """
    gc.disable()
    _restore_signals()
    syscalls.close_all_except(kept)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    os.umask(0)


def execute_program(credentials: Credentials, program: Program, channel: socket.socket) -> None:
    """The last steps of every process in a container: credentials, then exec."""
    credentials.set_user()
    # A change of ids clears this signal, so it is set again.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    end_if_orphaned(channel)
    syscalls.close_range(3, flags=syscalls.CLOSE_RANGE_CLOEXEC)
    credentials.set_privileges()
    program.execute()


def end_if_orphaned(channel: socket.socket) -> None:
    """A parent that died just before PR_SET_PDEATHSIG was set shows on the channel."""
    poller = select.poll()
    poller.register(channel, select.POLLHUP)
    if poller.poll(0):
        os._exit(1)


def host_uid(credentials: Credentials, user_namespace: int) -> int:
    """What the host calls the user; `user_namespace` is -1 where there is none. InvalidArgument where it has no name."""
    uid, gid = credentials.uid, credentials.gid
    if user_namespace < 0:
        return uid
    on_host = root_mount.host_ids(user_namespace, uid, gid)
    if _OVERFLOW_ID in on_host:
        raise InvalidArgument(f"process.user: {uid}:{gid} is not mapped in the user namespace")
    return on_host[0]


def become_root() -> None:
    """Of the user namespace that was just entered: the host's root has no name in it, nor what it would make."""
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _restore_signals() -> None:
    """Nothing handled, ignored or blocked: the latter two would even outlast exec."""
    signal.set_wakeup_fd(-1)
    for number in range(1, signal.NSIG):
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _Setup:
    """The steps of one container's init."""

    __slots__ = ("channel", "credentials", "made", "program", "request", "step")

    def __init__(self, step: Step, channel: socket.socket, request: CreateRequest, made: set[str]) -> None:
        self.step, self.channel, self.request, self.made = step, channel, request, made
        self.credentials = Credentials(request.spec["process"], request.seccomp)
        self.program = Program(request.spec["process"])

    def run(self, joined: dict[str, int]) -> None:
        request = self.request
        detach_from_parent({self.channel.fileno(), *request.stdio, *joined.values()})
        end_if_orphaned(self.channel)  # who cleans up after the parent looks for a cgroup once
        self._create_cgroup()
        self._enter_namespaces({kind: joined[kind] for kind in joined if kind != "pid"})
        self.step.doing = "preparing the root file system"
        tree = rootfs.prepare_mounts(request.root, request.spec)
        self._finish(tree, self.credentials.uid, joins_cgroups=True)

    def run_intermediate(self, joined: dict[str, int], parent: socket.socket) -> None:
        request = self.request
        detach_from_parent({self.channel.fileno(), parent.fileno(), *request.stdio, *joined.values()})
        end_if_orphaned(parent)
        self._create_cgroup()
        self.step.doing = "preparing the root file system"
        tree = rootfs.prepare_mounts(request.root, request.spec, joined["user"])
        chown_stdio(request.stdio, host_uid(self.credentials, joined["user"]))
        self._adjust_oom_score()
        self.step.doing = "joining cgroups"
        request.cgroups.attach(request.cgroup_path, 0)
        self._enter_namespaces(joined)
        become_root()
        flags = syscalls.CLONE_PARENT | namespaces.flags_of(self.made - {"cgroup"})
        pid, pidfd = syscalls.clone3(flags, 0)
        if pid:
            messages.send(parent, messages.PID, str(pid).encode(), (pidfd,))
            return
        parent.close()
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            self._finish(tree, -1, joins_cgroups=False)
        except Exception as error:  # noqa: BLE001  the edge of a process: the parent raises it again
            messages.send_failure(self.channel, error, self.step.doing)
            os._exit(127)

    def _create_cgroup(self) -> None:
        """Here and not in the parent: a monitor would keep the pages that this writes on for the pod's life."""
        self.step.doing = "creating the cgroup"
        resources = devices.with_default_rules(self.request.spec["linux"].get("resources") or {})
        self.request.cgroups.create(self.request.cgroup_path, resources)
        failpoint.hit("container.create.cgroup")

    def _enter_namespaces(self, joined: dict[str, int]) -> None:
        self.step.doing = "entering namespaces"
        namespaces.join(joined)
        for descriptor in joined.values():
            os.close(descriptor)

    def _finish(self, tree: rootfs.Tree, stdio_owner: int, *, joins_cgroups: bool) -> None:
        spec = self.request.spec
        os.setsid()
        syscalls.new_session_keyring("trivet")
        null = rootfs.host_null()
        self.credentials.open_label()
        self.step.doing = "setting the hostname"
        self._set_host_name()
        self.step.doing = "setting sysctls"
        sysctls.write(spec["linux"].get("sysctl") or {})
        if joins_cgroups:
            self._adjust_oom_score()
        self.step.doing = "building the root file system"
        rootfs.enter_root(tree, spec, null, lambda: self._join_cgroups(attach=joins_cgroups))
        os.close(null)
        console = self._set_up_streams(stdio_owner)
        self.step.doing = "entering the working directory"
        self.credentials.check_privileges()
        self.program.enter_directory()
        messages.send(self.channel, messages.CREATED, b"", console)
        for descriptor in console:
            os.close(descriptor)
        kind, _payload, _descriptors = messages.receive(self.channel)
        if kind != messages.START:
            os._exit(1)  # the parent has gone, or has given up
        self.step.doing = "taking on the user"
        failpoint.hit("container.init.exec")
        execute_program(self.credentials, self.program, self.channel)

    def _set_host_name(self) -> None:
        spec = self.request.spec
        for key, call in (("hostname", syscalls.sethostname), ("domainname", syscalls.setdomainname)):
            name = spec.get(key, "").encode()
            if name and "uts" in self.made:
                call(name, len(name))

    def _adjust_oom_score(self) -> None:
        self.step.doing = "setting oom_score_adj"
        if self.credentials.oom_score_adj is not None:
            adjust_oom_score(self.credentials.oom_score_adj)

    def _join_cgroups(self, *, attach: bool) -> None:
        self.step.doing = "joining cgroups"
        if attach:
            self.request.cgroups.attach(self.request.cgroup_path, 0)
        if "cgroup" in self.made:
            syscalls.unshare(syscalls.CLONE_NEWCGROUP)
        self.step.doing = "building the root file system"

    def _set_up_streams(self, stdio_owner: int) -> tuple[int, ...]:
        process = self.request.spec["process"]
        if process.get("terminal"):
            self.step.doing = "opening the terminal"
            size = process.get("consoleSize") or {}
            return (open_console(size, self.credentials.uid, at_dev_console=True),)
        self.step.doing = "taking the standard streams"
        install_stdio(self.request.stdio)
        if stdio_owner >= 0:
            chown_stdio((0, 1, 2), stdio_owner)
        return ()
