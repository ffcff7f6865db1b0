"""Which images an epoch takes, in which order: a function of seed and epoch, also for mixed sets."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from onestage.data.dataset import Dataset, Part
from onestage.records import ImageId, IntArray


def augmentation_seed(seed: int, epoch: int, image_id: ImageId | None, turn: int = 0) -> int:
    """The number from which the chance of one image in one epoch is drawn; None: the order of the epoch.

    `turn` counts how often the epoch has had the image before: only sets that are mixed by ratio repeat any. Any two
    of (seed, epoch, image id, turn) give unrelated numbers, the same on every machine. `1` and `"1"` differ.
    """
    words = f"{seed}\0{epoch}\0{type(image_id).__name__}\0{image_id}" + (f"\0again\0{turn}" if turn else "")
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little")


def generator(seed: int) -> np.random.Generator:
    """The generator that belongs to a number of `augmentation_seed` (and to `Batch.seeds`)."""
    return np.random.Generator(np.random.Philox(key=seed))


def drawn(parts: Sequence[Part]) -> list[int]:
    """How many images of each part an epoch takes: as many in all as there are, shared out by the ratios.

    Rounded by largest remainders; a part that has images gives at least one, one without gives none. Without ratios
    each gives all it has.
    """
    if any(part.ratio is None for part in parts):
        return [part.images for part in parts]
    total = sum(part.images for part in parts)
    largest = max((part.ratio or 0.0 for part in parts), default=0.0)
    weights = np.array([(part.ratio or 0.0) / largest if part.images else 0.0 for part in parts])
    exact = total * weights / max(weights.sum(), 1e-300)
    counts = np.maximum(np.floor(exact), [1.0 if part.images else 0.0 for part in parts]).astype(np.int64)
    while counts.sum() < total:
        counts[np.argmax(np.where(weights > 0, exact - counts, -np.inf))] += 1
    while counts.sum() > total:  # parts of less than one image got one: those with most give it
        counts[np.argmax(counts)] -= 1
    return [int(count) for count in counts]


def most_often(dataset: Dataset) -> dict[ImageId, int]:
    """How often an epoch may take an image, for those of sets that repeat any; all others come once at most."""
    result: dict[ImageId, int] = {}
    start = 0
    for part, count in zip(dataset.parts, drawn(dataset.parts), strict=True):
        if count != part.images and part.images:
            ids = (image.id for image in dataset.images[start : start + part.images])
            result |= dict.fromkeys(ids, -(-count // part.images) + 1)
        start += part.images
    return result


def epoch_order(dataset: Dataset, seed: int, epoch: int) -> list[int]:
    """The indices of the images that an epoch takes, shuffled: `len(dataset)` of them.

    Of sets mixed by ratio each goes through its images in an order of its own, one permutation after the other; an
    epoch takes up where the one before left off, so that no image is seen more often than another of its set.
    """
    taken = [
        _next(part, count, start, seed, epoch, place) for place, (part, count, start) in enumerate(_spans(dataset))
    ]
    indices = np.concatenate(taken) if taken else np.arange(len(dataset))
    shuffled = generator(augmentation_seed(seed, epoch, None)).permutation(indices)
    return [int(index) for index in shuffled]


def _spans(dataset: Dataset) -> list[tuple[Part, int, int]]:
    """Part, images per epoch and first index of each set that is mixed in by ratio."""
    if not dataset.mixed:
        return []
    starts = np.cumsum([0, *(part.images for part in dataset.parts)])
    return [
        (part, count, int(start))
        for part, count, start in zip(dataset.parts, drawn(dataset.parts), starts[:-1], strict=True)
        if part.images
    ]


def _next(part: Part, count: int, start: int, seed: int, epoch: int, place: int) -> IntArray:
    """The images of one set that an epoch takes: `count` of its endless row of permutations, from epoch x count on."""
    first = epoch * count
    rounds = range(first // part.images, (first + count - 1) // part.images + 1)
    row = np.concatenate([
        generator(augmentation_seed(seed, number, f"set {place} of the mixture")).permutation(part.images)
        for number in rounds
    ])  # fmt: skip
    at = first - rounds[0] * part.images
    return np.asarray(start + row[at : at + count], np.int64)


def turns(order: Sequence[int]) -> list[int]:
    """How often each index of an order has come before."""
    seen: dict[int, int] = {}
    result = []
    for index in order:
        result.append(seen.get(index, 0))
        seen[index] = result[-1] + 1
    return result


def any_index(dataset: Dataset, rng: np.random.Generator) -> int:
    """The index of an image drawn by `rng`: all alike, or each set by its ratio."""
    spans = _spans(dataset)
    if not spans:
        return int(rng.integers(len(dataset)))
    place = int(rng.integers(sum(count for _, count, _ in spans)))
    for part, count, start in spans:
        if place < count:
            return start + int(rng.integers(part.images))
        place -= count
    raise AssertionError("the counts add up")


def shares(dataset: Dataset) -> list[dict[str, Any]]:
    """The sets that a training set was put together from, as run.json keeps them; [] where it is one."""
    return [
        {"data": part.name, "images": part.images, "ratio": part.ratio, "per_epoch": count}
        for part, count in zip(dataset.parts, drawn(dataset.parts), strict=True)
    ]


def in_words(dataset: Dataset) -> str | None:
    """What an epoch takes of each set, in words; None where sets are not mixed by ratio."""
    if not dataset.mixed:
        return None
    said = [f"{row['per_epoch']} images of {row['data']} (it has {row['images']})" for row in shares(dataset)]
    return f"an epoch takes {' and '.join(said)}"
