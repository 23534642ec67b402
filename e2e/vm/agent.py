"""In the guest: runs what comes over the virtio port, one JSON line a command, and answers with status and output."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from typing import BinaryIO

_PORT = "/dev/virtio-ports/trivet"


def main() -> None:
    subprocess.run(["modprobe", "-a", "overlay", "bridge", "br_netfilter", "veth", "loop"], check=True)
    subprocess.run(["tar", "-xf", "/dev/vdb", "-C", "/trivet"], check=True)
    environment = {**os.environ, "HOME": "/root", "LANG": "C.UTF-8"}
    port = os.open(_PORT, os.O_RDWR)  # a second open file of it is not to be had
    with open(port, "rb") as commands, open(port, "wb", closefd=False) as answers:
        _say(answers, {"ready": True})
        for line in commands:
            command = json.loads(line)
            # A file and not a pipe: what a command leaves running keeps its output open.
            with tempfile.TemporaryFile() as file:
                ran = subprocess.run(
                    command, cwd="/trivet", env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
                )
                file.seek(0)
                output = file.read().decode(errors="replace")
            _say(answers, {"status": ran.returncode, "output": output})


def _say(answers: BinaryIO, answer: dict[str, object]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
