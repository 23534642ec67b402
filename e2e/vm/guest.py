"""A guest under QEMU, without KVM or network, that runs commands in a copy of the project's tree; its disk is thrown away."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

from e2e.vm.image import image, pack
from e2e.wait import wait_for

_BOOT_SECONDS = 300
_LAST_WORDS = 20000
_KERNEL = "console=ttyS0 root=/dev/vda rw quiet mitigations=off net.ifnames=0 panic=-1"
#: QEMU before 10 spoils the flags after cmpxchg16b, on which the kernel's allocator panics
_PROCESSOR = "max,la57=off,cx16=off"


class Guest:
    def __init__(self, directory: Path) -> None:
        disk, tree, self._console = image(), directory / "tree.tar", directory / "console"
        pack(tree)
        self._process = subprocess.Popen(
            [
                "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35",
                "-accel", "tcg,thread=multi", "-cpu", _PROCESSOR, "-smp", "2", "-m", "3072",
                "-kernel", str(disk / "vmlinuz"), "-initrd", str(disk / "initrd.img"), "-append", _KERNEL,
                "-drive", f"if=virtio,format=raw,snapshot=on,file={disk}/root.img",
                "-drive", f"if=virtio,format=raw,readonly=on,file={tree}",
                "-serial", f"file:{self._console}", "-device", "virtio-serial",
                "-chardev", f"socket,id=port,path={directory}/port,server=on,wait=off",
                "-device", "virtserialport,chardev=port,name=trivet",
                # a device on a bus, which leads nowhere
                "-netdev", "user,id=none,restrict=on", "-device", "virtio-net-pci,netdev=none,romfile=",
            ]
        )  # fmt: skip
        wait_for("QEMU's socket", (directory / "port").exists, 10)
        self._port = socket.socket(socket.AF_UNIX)
        self._port.connect(str(directory / "port"))
        self._port.settimeout(_BOOT_SECONDS)
        self._answers = self._port.makefile("rb")
        try:
            assert self._answer() == {"ready": True}
        except BaseException:
            self.close()
            raise

    def run(self, *command: str, seconds: float) -> str:
        """What it wrote; AssertionError with the end of that when it does not end with 0."""
        self._port.settimeout(seconds)
        self._port.sendall(json.dumps(command).encode() + b"\n")
        answer = self._answer()
        assert answer["status"] == 0, str(answer["output"])[-_LAST_WORDS:]
        return str(answer["output"])

    def close(self) -> None:
        self._answers.close()
        self._port.close()
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, object]:
        try:
            line = self._answers.readline()
        except TimeoutError:
            line = b""
        assert line, f"the guest does not answer: {self._console.read_text(errors='replace')[-3000:]}"
        found: dict[str, object] = json.loads(line)
        return found
