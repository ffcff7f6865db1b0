"""The first samples of a run against their images on disk: does what is seen lie where the boxes do?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from onestage.data.images import decode
from onestage.data.sample_check import Alignment, alignment
from onestage.errors import DataError
from onestage.records import Batch, Finding, ImageId, Where

MOST, ENOUGH = 24, 8  # samples looked at; so many do where none is astray
FEW, SHARE = 4, 0.3  # samples astray, and of those that could be judged, that are told

CODE = "pixels-astray"


class Samples:
    """Looks at the first samples of a run, whatever made them: policy, loader, or something behind both.

    A policy is tried before the run, on made pictures; what changes images later is seen here alone. `file_of` gives
    the file of an image id.
    """

    def __init__(self, file_of: Callable[[ImageId], Path | str | None] | None) -> None:
        self.file_of = file_of
        self.looked_at = 0
        self.agree = 0
        self.astray: list[tuple[ImageId, Alignment]] = []

    @property
    def done(self) -> bool:
        """Whether enough has been seen."""
        return self.file_of is None or self.looked_at >= (MOST if self.astray else ENOUGH)

    def look(self, step: int, batch: Batch) -> Finding | None:
        """Compare the samples of a batch; the finding, once, where too many show their image elsewhere."""
        for index in range(len(batch)):
            if self.done:
                return None
            self._compare(batch, index)
            if len(self.astray) >= FEW and len(self.astray) >= SHARE * (self.agree + len(self.astray)):
                self.looked_at = MOST
                return self._finding(step)
        return None

    def _compare(self, batch: Batch, index: int) -> None:
        self.looked_at += 1
        place = None if self.file_of is None else self.file_of(batch.ids[index])
        pixels = batch.images[index].transpose(1, 2, 0)
        if place is None or pixels.dtype != np.uint8:
            return
        try:
            image = decode(Path(place))
        except DataError:
            return  # whoever made the sample has read it, so this is not about augmentation
        found = alignment(image, np.ascontiguousarray(pixels), batch.transforms[index])
        if found is not None and found.astray:
            self.astray.append((batch.ids[index], found))
        elif found is not None:
            self.agree += found.agrees

    def _finding(self, step: int) -> Finding:
        image, first = self.astray[0]
        file = None if self.file_of is None else self.file_of(image)
        judged = self.agree + len(self.astray)
        evidence = {
            "astray": len(self.astray), "judged": judged,
            "examples": [f"{name}: {found.way()}" for name, found in self.astray[:3]],
            "alike": {"as told": round(first.told, 2), "as found": round(first.best, 2)},
        }  # fmt: skip
        return Finding(
            CODE, "error", Where(None if file is None else str(file), image=image, step=step),
            f"images move and their boxes do not: {len(self.astray)} of {judged} training samples show their image "
            f"elsewhere than their transform and boxes say; here {first.way()}",
            "the model is taught boxes where nothing is: the loss sinks to a plateau and stays, and AP near nothing",
            "look for a step that moves, zooms or mirrors images alone after the augmentation made the sample, and "
            "take it out, or have it move the boxes too; onestage train --dry-run draws the first batch",
            evidence,
        )  # fmt: skip
