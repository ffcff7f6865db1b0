"""Truths that the augmentation leaves out for their size: counted in a batch, foreseen for a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.face_crops import FILTERED, FaceCrops
from onestage.data.images import Size
from onestage.data.order import augmentation_seed, epoch_order, generator, turns
from onestage.data.policy import Policy
from onestage.experiments.filtered import Filtered
from onestage.experiments.run import Run
from onestage.records import Annotations, Finding, Where

# At most so many images are looked at beforehand, evenly over the set; a share of truths beyond which it is told.
LOOKED_AT = 2000
TOLD, GRAVE = 0.1, 0.5


def left_out(annotations: Sequence[Annotations]) -> tuple[int, int, int] | None:
    """How many truths of a batch are ignored as small, and as cut, and of how many; None where no policy says so."""
    if not any(FILTERED[0] in one.extra for one in annotations):
        return None
    small, cut = (sum(int(one.extra[name].sum()) for one in annotations if name in one.extra) for name in FILTERED)
    counted = sum(int((~(one.ignore | one.crowd)).sum()) for one in annotations)
    return small, cut, counted + small + cut


def foreseen(policy: Policy, dataset: Dataset, size: Size, seed: int) -> Filtered | None:
    """What the first epoch will leave out, by its own chance; no image is read. None for policies that filter nothing.

    Of more than LOOKED_AT images so many, evenly spaced, stand for all.
    """
    if not isinstance(policy, FaceCrops):
        return None
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(LOOKED_AT, len(dataset))).astype(int)).tolist()
    order = sorted(epoch_order(dataset, seed, 0))
    taken = list(zip(order, turns(order), strict=True))
    samples = []
    for index, turn in (taken[row] for row in rows):
        image = dataset.images[index]
        chance, truth = generator(augmentation_seed(seed, 0, image.id, turn)), dataset.annotations[image.id]
        samples.append(policy.truths((image.width, image.height), truth, chance, size))
    return Filtered(*(left_out(samples) or (0, 0, 0)), policy.min_face)


def counted(run: Run, foreseen: Filtered | None) -> dict[str, Any]:
    """What run.json keeps as `filtered`: the sums over all steps; nothing where nothing was foreseen to be filtered."""
    found = None if foreseen is None else Filtered.of_rows(run.steps, foreseen.min_face)
    return {} if found is None else {"filtered": found.as_dict()}


def findings(found: Filtered | None, size: Size) -> Iterator[Finding]:
    """What should be known before the run: a large share of the truths is too small to be learnt."""
    if found is None or found.share < TOLD:
        return
    yield Finding(
        "policy-filters-truths", "warning" if found.share >= GRAVE else "note", Where(),
        f"{100 * found.share:.0f} % of the truths are under {found.min_face:g} pixels at {size[0]}x{size[1]}, as the "
        "augmentation shows them",
        "they are ignored: not learnt, and not taught as background either",
        "a larger size, or a smaller augmentation.options.min_face",
        found.as_dict(),
    )  # fmt: skip
