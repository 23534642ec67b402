"""iptables and ip6tables by their executables: what stands in a chain, and one restore that is done whole or not. Cold.

Their own lock (-w) holds for one call. Who reads first and changes then holds ours, too. `kind` is which executables are
meant where a node has both kinds, each with tables of its own: "nft", "legacy", or "" for what the node calls iptables.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
from contextlib import contextmanager

from runtime_core.errors import NotFound, TrivetError, from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FAMILIES = (4, 6)
_NAMES = {4: "iptables", 6: "ip6tables"}
_TABLES = {4: "ip_tables_names", 6: "ip6_tables_names"}
_LOCK = "/run/trivet-iptables.lock"
#: of who may not write there: root in a user namespace alone, whose network namespace nobody else's processes are in
_OWN_LOCK = "/proc/thread-self/ns/net"
#: where the executables are, also for a caller whose PATH is short
_MORE_PATH = "/usr/sbin:/sbin:/usr/local/sbin"
_SECONDS = 60
#: said where a chain, or the whole table of a family, is not there
_ABSENT = ("No chain/target/match", "does not exist", "Table does not exist", "incompatible, use 'nft' tool")


class Missing(NotFound):
    """The executables of iptables; a plugin that needs them is not available (CNI specification, error code 50)."""

    code = 50


class Refused(TrivetError):
    """By iptables, in its own words."""


@contextmanager
def locked() -> Iterator[None]:
    """Hold Trivet's lock on the node's iptables within the block; it ends with the process."""
    descriptor = _open_lock()
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open_lock() -> int:
    try:
        return os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return os.open(_OWN_LOCK, os.O_RDONLY | os.O_CLOEXEC)
        raise from_oserror(error, f"opening {_LOCK}") from error


def is_installed(version: int, kind: str = "") -> bool:
    """The executables of IP `version` are installed."""
    return bool(_find(_name(version, kind))) and bool(_find(f"{_name(version, kind)}-restore"))


def default_kind(version: int) -> str:
    """The kind of what the node calls iptables: "nft" or "legacy", "" without it."""
    path = _find(_NAMES[version])
    return path and ("nft" if "nft" in os.path.basename(os.path.realpath(path)) else "legacy")


def other_kind(version: int) -> str:
    """The kind that has its executables here beside the one that the node calls iptables; "" where there is none."""
    kind = {"nft": "legacy", "legacy": "nft"}.get(default_kind(version), "")
    return kind if kind and is_installed(version, kind) else ""


def rules(version: int, table: str, chain: str = "", kind: str = "") -> list[list[str]] | None:
    """Words of each line that `-S` prints, of one chain or all; None when there is none. Missing without the executable."""
    name = _name(version, kind)
    done = run(name, ["-w", "-t", table, "-S", *([chain] if chain else [])])
    if done[0]:
        if any(words in done[1] for words in _ABSENT):
            return None
        raise Refused(f"{name} -t {table} -S {chain}: {done[1].strip()}")
    return [_words(line) for line in done[1].splitlines()]


def restore(version: int, tables: dict[str, list[list[str]]], kind: str = "") -> None:
    """Lines of `iptables-restore --noflush` by table: of each table all or none."""
    name = f"{_name(version, kind)}-restore"
    text = "".join(f"*{table}\n{''.join(_line(words) for words in lines)}COMMIT\n" for table, lines in tables.items() if lines)
    if not text:
        return
    status, said = run(name, ["-w", "--noflush"], text)
    if status:
        raise Refused(f"{name}: {said.strip()}")


def try_restore(version: int, tables: dict[str, list[list[str]]], kind: str = "") -> bool:
    """False when iptables refuses: something is not there that the lines take for granted. Asking first for each thing,
    as one does then, costs a process each."""
    try:
        restore(version, tables, kind)
    except Refused:
        return False
    return True


def legacy_tables(version: int) -> list[str]:
    """Of this network namespace. To ask the executables would make the tables, and load what they are made of."""
    try:
        with open(f"/proc/thread-self/net/{_TABLES[version]}", "rb", buffering=0) as file:
            return file.read().decode().split()
    except OSError:
        return []


def existence_checks(rules_there: list[list[str]]) -> list[list[str]]:
    """Lines that make a restore fail unless each of the rules (chain, and what follows -A) is there."""
    return [["-C", *words] for words in rules_there]


def comment(words: list[str]) -> str:
    """Of a rule."""
    return option_value(words, "--comment")


def option_value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1] if option in words else ""


def removals(lines: list[list[str]]) -> list[list[str]]:
    """Of rules as `-S` says them."""
    return [["-D", *words[1:]] for words in lines]


def jumps(lines: list[list[str]] | None, chain: str) -> list[list[str]]:
    """The rules among `lines` that jump to `chain`."""
    return [words for words in lines or [] if words[0] == "-A" and option_value(words, "-j") == chain]


def _name(version: int, kind: str) -> str:
    return f"{_NAMES[version]}-{kind}" if kind else _NAMES[version]


def _words(line: str) -> list[str]:
    """Of a line as iptables prints it: within double quotes a backslash stands before quotes of both kinds and itself."""
    words, word, is_quoted, characters = [], "", False, iter(line)
    for character in characters:
        if character == '"':
            is_quoted = not is_quoted
        elif character == "\\" and is_quoted:
            word += next(characters, "")
        elif character == " " and not is_quoted:
            words.append(word)
            word = ""
        else:
            word += character
    return [*words, word]


def _line(words: list[str]) -> str:
    return " ".join(_quoted(word) for word in words) + "\n"


def _quoted(word: str) -> str:
    if word and not any(character in " \t\"'\\#" for character in word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def run(name: str, arguments: list[str], text: str = "") -> tuple[int, str]:
    """(exit status, what it printed, or what it complained of) of an executable. Missing where it is not installed."""
    path = _find(name)
    if not path:
        raise Missing(f"{name} is not installed")
    # Files and not pipes: nobody has to feed or drain them, and `subprocess` costs a third of what iptables does.
    streams = [os.memfd_create(f"trivet-{name}", os.MFD_CLOEXEC) for _stream in range(3)]
    try:
        os.write(streams[0], text.encode())
        os.lseek(streams[0], 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, descriptor, number) for number, descriptor in enumerate(streams)]
        status = _wait(name, os.posix_spawn(path, [path, *arguments], os.environ, file_actions=actions))
        told = streams[1] if status == 0 else streams[2]
        return status, os.pread(told, os.fstat(told).st_size, 0).decode(errors="replace")
    except OSError as error:
        raise from_oserror(error, f"running {name}") from error
    finally:
        for descriptor in streams:
            os.close(descriptor)


def _wait(name: str, pid: int) -> int:
    """Its exit status; one that does not end is killed."""
    ended = os.pidfd_open(pid)
    try:
        poller = select.poll()
        poller.register(ended, select.POLLIN)
        if not poller.poll(_SECONDS * 1000):
            signal.pidfd_send_signal(ended, signal.SIGKILL)
            raise Refused(f"{name} did not end within {_SECONDS} s")
    finally:
        os.close(ended)
        status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)


def _find(name: str) -> str:
    for directory in f"{os.environ.get('PATH', '')}:{_MORE_PATH}".split(":"):
        path = os.path.join(directory, name)
        if directory.startswith("/") and os.access(path, os.X_OK):
            return path
    return ""
