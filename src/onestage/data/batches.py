"""One batch made from its task, in any thread or process: images read, kept, augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from onestage.data.dataset import Dataset
from onestage.data.images import Pixels, Size, decode
from onestage.data.order import any_index, augmentation_seed, generator
from onestage.data.policy import Picture, Policy, Sample
from onestage.errors import DataError
from onestage.records import Annotations, Batch, ImageId, ImageTransform


@dataclass(frozen=True)
class Task:
    """One batch to be made: the epoch, the images by index, how to augment them, and at what input size.

    `turns` says how often the epoch has had each image before.
    """

    epoch: int
    indices: tuple[int, ...]
    policy: Policy
    size: Size
    turns: tuple[int, ...]


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
        seeds = tuple(
            augmentation_seed(self.seed, task.epoch, image_id, turn)
            for image_id, turn in zip(ids, task.turns, strict=True)
        )
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
        return self.picture(any_index(self.dataset, rng))

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
