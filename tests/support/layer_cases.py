"""The cases of docs/image-layers.md: layers as archives, trees as text."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

_DOCUMENT = Path(__file__).parents[2] / "docs" / "image-layers.md"
#: in the first layer of every case, so that no two cases share one
MARK = ".case"
REFUSED = "refused"


@dataclass(frozen=True)
class Case:
    name: str
    layers: tuple[tuple[str, ...], ...]
    #: lines of `tree`, or [REFUSED]
    result: tuple[str, ...]
    #: the same where a peer differs
    containerd: tuple[str, ...]
    umoci: tuple[str, ...]

    def archives(self) -> list[bytes]:
        """A tar for each layer, base first."""
        mark = [_member(MARK, 0, self.name)]
        return [_archive(([] if n else mark) + [_member(m, n + 1) for m in layer]) for n, layer in enumerate(self.layers)]


def cases() -> list[Case]:
    found = []
    for line in _DOCUMENT.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and cells[0] != "case":
            layers = tuple(tuple(layer.split()) for layer in cells[1].split(";"))
            result = tuple(cells[2].split())
            found.append(Case(cells[0], layers, result, *(tuple(c.split()) if c else result for c in cells[3:])))
    assert found
    return found


def tree(root: Path) -> tuple[str, ...]:
    """What is below `root`, as the document writes it."""
    found = []
    for directory, names, files in os.walk(root):
        for name in sorted(names + files):
            path = Path(directory, name)
            shown = str(path.relative_to(root))
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # a whiteout in an opaque directory: overlayfs lists it all the same
                mode = 0
            if not mode:
                shown += ":?"
            elif stat.S_ISLNK(mode):
                shown += f"->{os.readlink(path)}"
            elif stat.S_ISDIR(mode):
                shown += "/"
            else:
                shown += f":{path.read_text()}"
            if name != MARK:
                found.append(shown)
    return tuple(sorted(found))


def _member(text: str, layer: int, content: str = "") -> tuple[tarfile.TarInfo, bytes]:
    name, link = text, ""
    kind = tarfile.DIRTYPE if text.endswith("/") else tarfile.REGTYPE
    for sign, link_kind in (("->", tarfile.SYMTYPE), ("=>", tarfile.LNKTYPE)):
        if sign in text:
            name, link = text.split(sign)
            kind = link_kind
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, 0o755 if kind == tarfile.DIRTYPE else 0o644
    body = (content or str(layer)).encode() if kind == tarfile.REGTYPE else b""
    if os.path.basename(name).startswith(".wh."):
        body = b""
    member.size = len(body)
    return member, body


def _archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member, body in members:
            archive.addfile(member, io.BytesIO(body))
    return buffer.getvalue()
