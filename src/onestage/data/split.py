"""Dividing one set into train and val, stratified and seeded; finding images that leak."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.formats.files import shown
from onestage.data.formats.listing import CODES
from onestage.errors import DataError
from onestage.records import BoolArray, Finding, Where


def stratified(present: BoolArray, fraction: float, seed: int = 0) -> BoolArray:
    """Which of N items go to validation, so that each label keeps the same share on both sides.

    `present` (N, L) says which item holds which label; an item may hold several or none. `fraction` in (0, 1). The same
    input and seed give the same answer. For N >= 2 each side has at least one item. Iterative stratification after
    Sechidis, Tsoumakas, Vlahavas (2011), algorithm 1: the rarest label not yet dealt out goes first, each of its items
    to the side that lacks it most; ties go to the side that lacks most items, then to training. Having no label at all
    counts as a label, so that empty items are shared out too. Items are taken in a seeded order.
    """
    n = len(present)
    labels = np.concatenate([present, ~present.any(axis=1, keepdims=True)], axis=1)
    shares = np.array([1 - fraction, fraction])
    lacking = labels.sum(axis=0)[None, :] * shares[:, None]  # (2, L): what each side still lacks of each label
    lacking_items = n * shares
    order = np.random.default_rng(seed).permutation(n)
    side = np.full(n, -1)
    while (side < 0).any():
        left = labels[side < 0].sum(axis=0)
        label = int(np.argmin(np.where(left > 0, left, n + 1)))
        for item in order[(side[order] < 0) & labels[order, label]]:
            chosen = int((lacking[1, label], lacking_items[1]) > (lacking[0, label], lacking_items[0]))
            side[item] = chosen
            lacking[chosen] -= labels[item]
            lacking_items[chosen] -= 1
    for empty in (0, 1):
        if n >= 2 and not (side == empty).any():
            side[order[0]] = empty
    result: BoolArray = side == 1
    return result


class UndividedError(DataError):
    """A set that is one image, or one video, where two sets were to be made of it."""


def divided(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """A dataset as (train, val); frames of one video, and images equal byte for byte, stay on one side.

    `fraction` counts videos, not frames, where there are any. Raises UndividedError where there are fewer than two
    different images, or nothing but one video.
    """
    images = dataset.images
    first = _together(dataset)
    heads = sorted(set(first))
    if len(heads) < 2 and len(images) > 1 and videos_of(dataset) == 1:
        raise UndividedError(
            f"{len(images)} frames of one video cannot be divided into training and validation: neighbours look alike",
            hint="add videos, or name a validation set",
        )
    if len(heads) < 2:
        raise UndividedError(
            f"{len(images)} image{'s' * (len(images) != 1)} cannot be divided into training and validation",
            hint="add images, or name a validation set",
        )
    place = {head: i for i, head in enumerate(heads)}
    present = np.zeros((len(heads), len(dataset.classes)), bool)
    for index, image in enumerate(images):
        truth = dataset.annotations[image.id]
        present[place[first[index]], truth.labels[~truth.ignore]] = True
    chosen = stratified(present, fraction, seed)
    val = {image.id for index, image in enumerate(images) if chosen[place[first[index]]]}
    train = {image.id for image in images} - val
    return dataset.only(train, "train"), dataset.only(val, "val")


def videos_of(dataset: Dataset) -> int:
    """How many videos the images of a dataset are frames of."""
    return len({image.sequence for image in dataset.images} - {None})


def _together(dataset: Dataset) -> list[int]:
    """For each image the index of the first that it must stay with."""
    images = dataset.images
    first = list(range(len(images)))
    starts: dict[str, int] = {}
    for index, image in enumerate(images):
        if image.sequence is not None:
            first[index] = starts.setdefault(image.sequence, index)
    for group in same_bytes([image.path for image in images]):
        heads = {first[index] for index in group}
        if len(heads) > 1:
            first = [min(heads) if head in heads else head for head in first]
    return first


def leaks(train: Dataset, val: Dataset) -> Finding | None:
    """A finding where images of validation are, byte for byte, among those of training."""
    paths = [image.path for image in (*train.images, *val.images)]
    border = len(train.images)
    twins = [
        (min(group), index) for group in same_bytes(paths) if group[0] < border for index in group if index >= border
    ]
    if not twins:
        return None
    names = [f"{shown(paths[b], val.root)} = {shown(paths[a], train.root)}" for a, b in twins]
    severity, consequence, remedy = CODES["leak"]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    what = f"{len(twins)} of {len(val)} {val.split} images are also in {train.split}: {', '.join(names[:3])}{more}"
    return Finding("leak", severity, Where(), what, consequence, remedy, {"images": names})


def same_bytes(paths: Sequence[Path]) -> list[list[int]]:
    """Groups of indices of `paths` whose files are equal byte for byte; only groups of two or more, in order."""
    by_size: dict[int, list[int]] = {}
    for index, path in enumerate(paths):
        by_size.setdefault(os.stat(path).st_size, []).append(index)  # noqa: PTH116 (speed)
    groups: dict[bytes, list[int]] = {}
    for indices in by_size.values():
        if len(indices) > 1:
            for index in indices:
                digest = hashlib.blake2b(paths[index].read_bytes(), digest_size=16).digest()
                groups.setdefault(digest, []).append(index)
    return sorted(group for group in groups.values() if len(group) > 1)
