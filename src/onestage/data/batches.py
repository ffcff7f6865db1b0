"""One batch made from its task, in any thread or process: images read, kept, augmented."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestage.data.dataset import Dataset
from onestage.data.images import Pixels, Size, decode
from onestage.data.policy import Picture, Policy, Sample
from onestage.errors import DataError
from onestage.records import Annotations, Batch, ImageId, ImageTransform


def augmentation_seed(seed: int, epoch: int, image_id: ImageId | None) -> int:
    """The number from which the chance of one image in one epoch is drawn; None: the order of the epoch.

    Any two of (seed, epoch, image id) give unrelated numbers, the same on every machine. `1` and `"1"` differ.
    """
    words = f"{seed}\0{epoch}\0{type(image_id).__name__}\0{image_id}"
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")


def generator(seed: int) -> np.random.Generator:
    """The generator that belongs to a number of `augmentation_seed` (and to `Batch.seeds`)."""
    return np.random.Generator(np.random.Philox(key=seed))


@dataclass(frozen=True)
class Task:
    """One batch to be made: the epoch, the images by index, how to augment them, and at what input size."""

    epoch: int
    indices: tuple[int, ...]
    policy: Policy
    size: Size


class Parts(NamedTuple):
    """A batch on its way: images (B, H, W, 3) and what goes with them."""

    images: NDArray[np.uint8]
    annotations: tuple[Annotations, ...]
    transforms: tuple[ImageTransform, ...]
    ids: tuple[ImageId, ...]
    seeds: tuple[int, ...]

    def as_batch(self) -> Batch:
        """The record that leaves the loader."""
        return Batch(self.images.transpose(0, 3, 1, 2), *self[1:])


class Maker:
    """Makes batches from tasks, in whatever thread or process; keeps decoded images, `room` bytes at most."""

    def __init__(self, dataset: Dataset, seed: int, room: int) -> None:
        self.dataset, self.seed = dataset, seed
        bytes_up_to = np.cumsum([3 * image.width * image.height for image in dataset.images])
        self.kept = int(np.searchsorted(bytes_up_to, room, side="right"))  # known beforehand, so no race can exceed it
        self.cache: dict[int, Pixels] = {}

    def batch(self, task: Task, into: Pixels | None = None) -> Parts:
        """The batch of a task; its images are written to `into` (B, H, W, 3) when given."""
        width, height = task.size
        images = np.empty((len(task.indices), height, width, 3), np.uint8) if into is None else into
        ids = tuple(self.dataset.images[index].id for index in task.indices)
        seeds = tuple(augmentation_seed(self.seed, task.epoch, image_id) for image_id in ids)
        annotations, transforms = [], []
        for i, (index, seed) in enumerate(zip(task.indices, seeds, strict=True)):
            sample = self.sample(index, seed, task.policy, task.size)
            images[i] = sample.image
            annotations.append(sample.annotations)
            transforms.append(sample.transform)
        return Parts(images, tuple(annotations), tuple(transforms), ids, seeds)

    def sample(self, index: int, seed: int, policy: Policy, size: Size) -> Sample:
        """One image as its policy and its own chance show it."""
        image, annotations = self.picture(index)
        return policy(image, annotations, generator(seed), size, self.any_picture)

    def any_picture(self, rng: np.random.Generator) -> Picture:
        """A picture of the set drawn by `rng`, for policies that mix several."""
        return self.picture(int(rng.integers(len(self.dataset))))

    def picture(self, index: int) -> Picture:
        """An image as read, with its annotations; policies must not write to it."""
        info = self.dataset.images[index]
        image = self.cache.get(index)
        if image is None:
            image = decode(info.path)
            if image.shape[:2] != (info.height, info.width):
                raise DataError(
                    f"{info.path}: expected {info.width}x{info.height} pixels as when the dataset was read, "
                    f"got {image.shape[1]}x{image.shape[0]}",
                    hint="read the dataset again; the file has changed since",
                )
            if index < self.kept:
                self.cache[index] = image
        return image, self.dataset.annotations[info.id]
