"""A Debian disk image with systemd, cgroup v2 alone and Trivet's dependencies, made once and kept in a cache directory."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

_HERE = Path(__file__).parent
_TREE = _HERE.parents[1]
_SUITE = "trixie"  # its kernel is 6.12
_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_PACKAGES = (
    "linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "nftables", "procps", "busybox-static",
    "libseccomp2", "gcc", "libc6-dev", "python3-venv", "ca-certificates", "e2fsprogs", "xfsprogs", "btrfs-progs", "iptables",
)  # fmt: skip
_UNIT = """[Service]
ExecStart=/usr/bin/python3 /usr/local/sbin/agent
Delegate=yes
TasksMax=infinity
[Install]
WantedBy=multi-user.target
"""


def image() -> Path:
    """The directory with root.img, vmlinuz and initrd; minutes when it is made for the first time.

    Needs debootstrap, e2fsprogs and an apt whose lists are fresh (Debian); raises subprocess.CalledProcessError.
    """
    recipe = sha256(b"".join(path.read_bytes() for path in (Path(__file__), _HERE / "agent.py", _TREE / "pyproject.toml")))
    cache = Path(os.environ.get("TRIVET_PEERS") or Path.home() / ".cache" / "trivet" / "peers")
    target = cache / f"vm-{recipe.hexdigest()[:16]}"
    target.mkdir(parents=True, exist_ok=True)
    with (cache / "vm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "root.img").exists():
            # In a mount namespace of its own, so that nothing stays mounted here whatever happens.
            command = ["unshare", "--mount", sys.executable, "-m", "e2e.vm.image", str(target)]
            subprocess.run(command, check=True, cwd=_TREE)
            for other in set(cache.glob("vm-*")) - {target}:  # of recipes before this one
                shutil.rmtree(other)
    return target


def pack(target: Path) -> None:
    """The project's tree as a tar archive; what is hidden or generated stays away."""
    names = [path.name for path in _TREE.iterdir() if not path.name.startswith(".") and path.suffix != ".egg-info"]
    subprocess.run(["tar", "-C", str(_TREE), "--exclude=__pycache__", "-cf", str(target), *sorted(names)], check=True)


def _build(target: Path) -> None:
    root = target / "rootfs"
    root.mkdir(exist_ok=True)
    # In memory: a package manager that syncs each file takes ten times as long on a disk.
    _run("mount", "-t", "tmpfs", "-o", "size=6g,mode=755", "tmpfs", str(root))
    _run("debootstrap", "--variant=minbase", _SUITE, str(root), *_mirror())
    _run("mount", "-t", "proc", "proc", f"{root}/proc")
    _run("mount", "--rbind", "/dev", f"{root}/dev")
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    _run("chroot", str(root), "apt-get", "-qq", "-o", "APT::Install-Recommends=false", "install", "-y", *_PACKAGES)
    _copy_pip_settings(root)
    (root / "trivet").mkdir()
    pack(target / "tree.tar")
    _run("tar", "-xf", str(target / "tree.tar"), "-C", f"{root}/trivet")
    for arguments in (("test", "--version"), ("demo", "--help")):  # both sets of dependencies
        _run("chroot", str(root), "/trivet/run", *arguments)
    _remove_sources(root / "trivet")
    shutil.copyfile(_HERE / "agent.py", root / "usr/local/sbin/agent")
    (root / "etc/systemd/system/agent.service").write_text(_UNIT)
    _run("chroot", str(root), "systemctl", "enable", "agent.service")
    for name in ("vmlinuz", "initrd.img"):
        shutil.copyfile(root / name, target / name)
    _run("umount", "--lazy", f"{root}/dev", f"{root}/proc")
    unfinished = target / "root.img.new"
    with unfinished.open("wb") as file:
        file.truncate(8 << 30)
    _run("mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(unfinished))
    unfinished.rename(target / "root.img")


def _copy_pip_settings(root: Path) -> None:
    """Whatever index pip uses here, and whoever vouches for it, shall do there."""
    if Path("/etc/pip.conf").exists():
        shutil.copyfile("/etc/pip.conf", root / "etc/pip.conf")
    shutil.copyfile(os.environ.get("PIP_CERT", _AUTHORITIES), root / _AUTHORITIES[1:])


def _remove_sources(tree: Path) -> None:
    """Each guest gets those of its day: a file that is no more must not be there."""
    for path in tree.iterdir():
        if path.name != ".venv" and path.suffix != ".egg-info":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _mirror() -> list[str]:
    """The archive that this machine's apt uses, where it has one."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    return [line.split()[0] for line in listed if "-" not in line.split()[1]][:1]


def _run(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
    environment["PATH"] += ":/usr/sbin:/sbin"
    if "PIP_CERT" in environment:
        environment["PIP_CERT"] = _AUTHORITIES
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
