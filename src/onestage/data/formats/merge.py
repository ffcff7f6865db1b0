"""Several sets of images as one, with ids that stay unique."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from onestage.data.dataset import Dataset
from onestage.records import Annotations, Finding, ImageId, ImageInfo


def merged(parts: Sequence[Dataset], split: str) -> Dataset:
    """All images of `parts` (same classes) in their order under the name `split`.

    An image that stands in several parts (same file) is taken once. Where different files share an id, the later one's
    id is put behind its split's name; integer ids become the next free integer. Raises ValueError for unequal classes.
    """
    if any(part.classes != parts[0].classes for part in parts):
        raise ValueError("merged: the parts have different class lists")
    images: list[ImageInfo] = []
    truths: dict[ImageId, Annotations] = {}
    paths = set()
    repeated_images = repeated_boxes = 0
    for part in parts:
        for image in part.images:
            truth = part.annotations[image.id]
            if image.path in paths:
                repeated_images, repeated_boxes = repeated_images + 1, repeated_boxes + len(truth)
                continue
            paths.add(image.path)
            image_id = _free(image.id, part.split, truths)
            images.append(replace(image, id=image_id))
            truths[image_id] = truth
    findings = tuple(unique(finding for part in parts for finding in part.findings))
    return Dataset(
        parts[0].root, parts[0].format, split, parts[0].classes, tuple(images), truths, findings,
        sum(part.boxes_read for part in parts) - repeated_boxes,
        sum(part.images_read for part in parts) - repeated_images,
        _shared_ids(parts),
    )  # fmt: skip


def _shared_ids(parts: Sequence[Dataset]) -> dict[int, str]:
    """The category ids of all parts; none where one means two classes."""
    found: dict[int, str] = {}
    for number, name in (pair for part in parts for pair in part.category_ids.items()):
        if found.setdefault(number, name) != name:
            return {}
    return found


def unique(findings: Iterable[Finding]) -> list[Finding]:
    """The findings without repetitions (same code, place and words), in order."""
    return list({(found.code, found.where, found.what): found for found in findings}.values())


def _free(image_id: ImageId, split: str, taken: dict[ImageId, Annotations]) -> ImageId:
    if image_id not in taken:
        return image_id
    if isinstance(image_id, int):
        return max(key for key in taken if isinstance(key, int)) + 1
    named = f"{split}/{image_id}"
    while named in taken:
        named += "+"
    return named
