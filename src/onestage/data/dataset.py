"""A set of annotated images as read: classes in recorded order, images, annotations, what was wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from onestage.records import Annotations, Finding, ImageId, ImageInfo


@dataclass(frozen=True)
class Dataset:
    """Annotated images of one split.

    `images` keep the order of the file or, for folders, sorted order; every image has an entry in `annotations`
    (an image without objects has an empty one). `classes[label]` names a label. `findings` list each dropped row and
    each unreadable image; `boxes_read` and `images_read` count what the files held before anything was dropped.
    `category_ids` are the class names by the ids that COCO files give them, empty for other formats.
    """

    root: Path
    format: str
    split: str
    classes: tuple[str, ...]
    images: tuple[ImageInfo, ...]
    annotations: Mapping[ImageId, Annotations]
    findings: tuple[Finding, ...] = ()
    boxes_read: int = 0
    images_read: int = 0
    category_ids: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = [image.id for image in self.images]
        if len(set(ids)) != len(ids):
            raise ValueError("Dataset: image ids are not unique")
        missing = [image_id for image_id in ids if image_id not in self.annotations]
        if missing:
            raise ValueError(f"Dataset: {len(missing)} images have no entry in annotations, first {missing[0]!r}")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def boxes(self) -> int:
        """How many boxes the images of this split carry."""
        return sum(len(self.annotations[image.id]) for image in self.images)

    @property
    def zero_based(self) -> bool:
        """Whether its files are VOC's but count pixels from 0, so that their corners were taken as they stand."""
        return any(finding.code == "zero-based" for finding in self.findings)

    @property
    def truths(self) -> dict[ImageId, Annotations]:
        """The annotations of the images of this split, by id."""
        return {image.id: self.annotations[image.id] for image in self.images}

    @property
    def sizes(self) -> dict[ImageId, tuple[int, int]]:
        """Width and height of the images whose size is known."""
        return {image.id: (image.width, image.height) for image in self.images if image.width and image.height}

    def only(self, ids: set[ImageId], split: str) -> Dataset:
        """The images of `ids`, in the same order, under the name `split`; findings stay with the whole."""
        images = tuple(image for image in self.images if image.id in ids)
        kept = {image.id: self.annotations[image.id] for image in images}
        return replace(self, images=images, annotations=kept, split=split)

    def fingerprint(self) -> str:
        """SHA-256 over class names, ids, sizes, boxes and labels: equal data gives an equal hash anywhere."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        for image in self.images:
            truth = self.annotations[image.id]
            digest.update(f"\n{image.id}\0{image.width}x{image.height}\0".encode())
            digest.update(truth.boxes.tobytes())
            digest.update(truth.labels.tobytes())
        return digest.hexdigest()
