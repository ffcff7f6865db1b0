"""A set of annotated images as read: classes in recorded order, images, annotations, what was wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from onestage.records import Annotations, Finding, ImageId, ImageInfo


@dataclass(frozen=True)
class Part:
    """One of several sets that a training set was put together from: its name, how many images it has, its ratio.

    The images of the parts follow one another. `ratio`, above 0, says how many images an epoch takes beside the other
    parts'; None: each once.
    """

    name: str
    images: int
    ratio: float | None = None


@dataclass(frozen=True)
class Dataset:
    """Annotated images of one split.

    `images` keep the order of the file or, for folders, sorted order; every image has an entry in `annotations`
    (an image without objects has an empty one). `classes[label]` names a label. `findings` list each dropped row and
    each unreadable image; `boxes_read` and `images_read` count what the files held before anything was dropped.
    `category_ids` are the class names by the ids that COCO files give them, empty for other formats. `parts` are the
    sets that it was put together from, in the order of the images, where there are several.
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
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        ids = [image.id for image in self.images]
        if len(set(ids)) != len(ids):
            raise ValueError("Dataset: image ids are not unique")
        missing = [image_id for image_id in ids if image_id not in self.annotations]
        if missing:
            raise ValueError(f"Dataset: {len(missing)} images have no entry in annotations, first {missing[0]!r}")
        if self.parts and sum(part.images for part in self.parts) != len(ids):
            raise ValueError(f"Dataset: its parts do not add up to {len(ids)} images")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def mixed(self) -> bool:
        """Whether its parts are mixed by ratio, so that an epoch does not take each image once."""
        return any(part.ratio is not None for part in self.parts)

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
        return replace(self, images=images, annotations=kept, split=split, parts=self._parts_of(ids))

    def _parts_of(self, ids: set[ImageId]) -> tuple[Part, ...]:
        start, parts = 0, []
        for part in self.parts:
            inside = self.images[start : start + part.images]
            parts.append(replace(part, images=sum(image.id in ids for image in inside)))
            start += part.images
        return tuple(parts)

    def fingerprint(self) -> str:
        """SHA-256 over class names, ids, sizes, boxes, labels and ratios: equal data gives an equal hash anywhere."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        if self.mixed:
            digest.update(repr([(part.images, part.ratio) for part in self.parts]).encode())
        for image in self.images:
            truth = self.annotations[image.id]
            digest.update(f"\n{image.id}\0{image.width}x{image.height}\0".encode())
            digest.update(truth.boxes.tobytes())
            digest.update(truth.labels.tobytes())
        return digest.hexdigest()
