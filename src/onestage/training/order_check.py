"""Whether each image comes once in an epoch, and each epoch in an order of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onestage.records import Finding, ImageId, Where
from onestage.training.loop.step_record import StepRecord

# Two epochs that begin with so many images alike do not so by chance (1 in 40,000 where there are no others).
FIRST = 8


class OrderCheck:
    """Looks at the ids of batch after batch, in one process; a sampler that is stuck is told of once.

    `often` says how often an epoch may have an image, for those that sets mixed by ratio repeat; others come once.
    """

    def __init__(self, files: Mapping[ImageId, Path], often: Mapping[ImageId, int] | None = None) -> None:
        self.files, self.often = files, often or {}
        self.told = False
        self.forget()

    def forget(self) -> None:
        """Begin anew: what comes next may have been seen before."""
        self.epoch: int | None = None
        self.whole = False  # seen from its first batch
        self.seen: dict[ImageId, int] = {}
        self.times: dict[ImageId, int] = {}
        self.before: list[ImageId] = []

    def look(self, record: StepRecord) -> Finding | None:
        """What is wrong with the images of a step, if anything; mostly nothing."""
        if self.told:
            return None
        if record.epoch != self.epoch:
            self.before = list(self.seen)[:FIRST] if self.whole else []
            self.whole = self.epoch is not None or record.step == 1
            self.epoch, self.seen, self.times = record.epoch, {}, {}
        return self._again(record) or self._same_order(record)

    def _again(self, record: StepRecord) -> Finding | None:
        for image in record.ids:
            self.times[image] = self.times.get(image, 0) + 1
            if self.times[image] > self.often.get(image, 1):
                first, name = self.seen[image], self.files.get(image, image)
                where = f"at steps {first} and {record.step}" if first != record.step else f"twice at step {first}"
                due = "once" if image not in self.often else f"{self.often[image]} times at most"
                what = f"{name} came {where}, both in epoch {record.epoch + 1}: each image should come {due}"
                return self._finding(record, what, None if image not in self.files else str(name), image)
            self.seen[image] = record.step
        return None

    def _same_order(self, record: StepRecord) -> Finding | None:
        if len(self.before) < FIRST or len(self.seen) < FIRST or len(self.seen) - len(record.ids) >= FIRST:
            return None
        if list(self.seen)[:FIRST] != self.before:
            return None
        what = f"epoch {record.epoch + 1} takes the images in the same order as the epoch before"
        return self._finding(record, what, None, None)

    def _finding(self, record: StepRecord, what: str, file: str | None, image: ImageId | None) -> Finding:
        self.told = True
        return Finding(
            "batches-alike", "warning", Where(file=file, image=image, step=record.step), what,
            "the network sees the same images over and over, others seldom or never",
            "check the list of images for repeats, and that the order is drawn anew for each epoch",
            {"step": record.step, "epoch": record.epoch},
        )  # fmt: skip
