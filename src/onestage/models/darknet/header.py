"""The first bytes of a .weights file, and what a file is that only bears the name."""

from __future__ import annotations

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

from onestage.errors import ModelError

SUFFIXES = (".weights", ".backup")
_CUT = re.compile(r"\.conv\.(\d+)$")
_NEWEST = 1000  # versions from here on are of darknets whose `seen` had 32 bits, as their readers know
_START = 512  # bytes that tell what a file is
_KINDS = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "git lfs pull"),
    (b"\x89PNG", "a PNG image", None), (b"\xff\xd8\xff", "a JPEG image", None),
    (b"\x1f\x8b", "a gzip archive", "gunzip"),
    (b"\x89HDF", "an HDF5 file (Keras .h5)", None), (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"), (b"%PDF", "a PDF document", None),
)  # fmt: skip
_TORCH = "a torch file (.pth, .pt), whose numbers do not begin at a fixed byte"


@dataclass(frozen=True)
class Header:
    """What stands before the numbers: the version of the program that wrote them, and the images it had `seen`."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def wide(self) -> bool:
        """Whether `seen` takes 8 bytes: from version 0.2 on."""
        return self.major * 10 + self.minor >= 2 and self.major < _NEWEST and self.minor < _NEWEST

    @property
    def version(self) -> str:
        """The version as words write it: 0.2.5."""
        return f"{self.major}.{self.minor}.{self.revision}"

    def as_bytes(self) -> bytes:
        """The header as a file begins with it, 20 bytes, or 16 before version 0.2."""
        return struct.pack("<iiiq" if self.wide else "<iiii", self.major, self.minor, self.revision, self.seen)

    @classmethod
    def of(cls, start: bytes) -> Header:
        """The header that a file of at least 20 bytes begins with."""
        major, minor, revision = struct.unpack_from("<iii", start)
        narrow = cls(major, minor, revision, struct.unpack_from("<i", start, 12)[0])
        return cls(major, minor, revision, struct.unpack_from("<q", start, 12)[0]) if narrow.wide else narrow

    @property
    def plausible(self) -> bool:
        """Whether some darknet may have written it; what is no .weights file begins with other numbers."""
        return 0 <= self.major < 10 and 0 <= self.minor < 100 and 0 <= self.revision < 1000 and self.seen >= 0


def cut_of(path: Path) -> int | None:
    """How many layers a file holds by its name, `darknet53.conv.74`; None where the name does not say."""
    found = _CUT.search(path.name)
    return int(found[1]) if found else None


def is_weights(path: Path) -> bool:
    """Whether a file is meant for darknet: by its name, or by beginning as its files do and being nothing else."""
    if path.suffix.lower() in SUFFIXES or cut_of(path) is not None:
        return True
    if path.suffix.lower() == ".safetensors" or not path.is_file():
        return False
    start = _start(path)
    size = path.stat().st_size
    return size > 20 and size % 4 == 0 and kind_of(path, start) is None and Header.of(start).plausible


def refuse_others(path: Path) -> Header:
    """The header of a .weights file; ModelError that names what the file is instead, or in what it is too short."""
    if not path.is_file():
        raise ModelError(
            f"no weights at {path}" + (", it is a folder" if path.is_dir() else ""), hint="a .weights file of darknet"
        )
    start, size = _start(path), path.stat().st_size
    if (told := kind_of(path, start)) is not None:
        what, hint = told
        raise ModelError(f"{path} is no .weights file of darknet: it is {what}", hint=hint)
    if size < 20:
        raise ModelError(
            f"{path} is no .weights file of darknet: it has {size} bytes, and a header has 16 or 20",
            hint="the download was cut short: take the file again",
        )
    if size % 4:
        raise ModelError(
            f"{path}: {size:,} bytes are no whole number of floats: a .weights file has a multiple of 4",
            hint="the file was cut short, or was changed as text on the way: take it again, in binary mode",
        )
    header = Header.of(start)
    if not header.plausible:
        raise ModelError(
            f"{path} is no .weights file of darknet: expected it to begin with a version such as 0.2.0, got "
            f"{header.version}{f' and {header.seen:,} images seen' if header.seen < 0 else ''}",
            hint="the file's own program; onestage reads .weights, .safetensors, .pth",
        )  # fmt: skip
    return header


def kind_of(path: Path, start: bytes) -> tuple[str, str | None] | None:
    """What a file is that cannot be a .weights file, and what to do about it; None for one that may be."""
    if not start:
        return "empty", "take the file again"
    if start[:4] == b"PK\x03\x04":
        return _zipped(path)
    if len(start) > 8 and start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= 100_000_000:
        return "a safetensors file", f"its name with the ending .safetensors: {path.stem}.safetensors"
    if start[:1] == b"\x80" and 2 <= start[1] <= 5:
        return _TORCH, f"its name with the ending .pth: {path.stem}.pth"
    if start[:1] == b"\x08" and start[1] < 100 and start[2:3] in (b"\x12", b"\x1a", b"\x3a"):
        return "an ONNX model", "the weights it was exported from"
    if start[4:8] == b"TFL3":
        return "a TensorFlow Lite model", None
    known = next(((what, hint) for magic, what, hint in _KINDS if start.startswith(magic)), None)
    return known or _text(start)


def _zipped(path: Path) -> tuple[str, str | None]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return "a zip archive or torch file that is damaged or cut short", "take the file again"
    if any(name.endswith("data.pkl") for name in names):
        return _TORCH, f"its name with the ending .pth: {path.stem}.pth"
    return "a zip archive", "unpack it"


def _text(start: bytes) -> tuple[str, str | None] | None:
    """Of a text what it is: a page instead of a download, a cfg in the wrong place; None for bytes."""
    text = start.decode("utf-8", "replace").strip("\ufeff \t\r\n").lower()
    if "\0" in text or text.count("\ufffd") > 1:  # a version's whole numbers hold zeros; a character may be cut in two
        return None
    if text.startswith(("<!doctype", "<html", "<?xml", "<head", "<script")):
        return "an HTML page: the server answered with a page instead of the file", "the link behind the page's button"
    if "[net]" in text or "[network]" in text:
        return "a cfg", "model=FILE.cfg, and its weights beside it"
    return "a text file", "a .weights file of darknet"


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_START)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
