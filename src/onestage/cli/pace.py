"""How fast a run goes and when it will end, from medians of the last steps."""

from __future__ import annotations

from collections import deque
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onestage.training.loop.step_record import StepRecord

WINDOW = 50
# Judging an image costs about this share of a training step's time for it, until an evaluation was timed.
JUDGING_SHARE = 0.5


class Pace:
    """Rolling view of a run's last WINDOW steps; all times in seconds.

    `steps` is how many the run has in all, `evaluations` how many times it is judged, the final judgement included,
    and `val_images` how many images each looks at.
    """

    def __init__(self, steps: int, evaluations: int, val_images: int) -> None:
        self.steps, self.evaluations, self.val_images = steps, evaluations, val_images
        self.recent: deque[StepRecord] = deque(maxlen=WINDOW)
        self.judged: list[float] = []

    def stepped(self, record: StepRecord) -> None:
        """Take in a step."""
        self.recent.append(record)

    def evaluated(self, seconds: float) -> None:
        """Take in the time an evaluation took."""
        self.judged.append(seconds)

    @property
    def images_per_second(self) -> float:
        """Of the median step, waiting included; 0 before the first step."""
        seconds = self._step_seconds()
        return median(record.images for record in self.recent) / seconds if seconds else 0.0

    @property
    def data_share(self) -> float:
        """Share of the time spent waiting for data, in [0, 1]."""
        waited = sum(record.seconds["data"] for record in self.recent)
        total = waited + sum(record.seconds["step"] for record in self.recent)
        return waited / total if total else 0.0

    @property
    def losses(self) -> dict[str, float]:
        """Mean of each weighted part of the loss, and their sum as `loss`."""
        if not self.recent:
            return {}
        names = self.recent[-1].weighted
        parts = {name: fmean(record.weighted[name] for record in self.recent) for name in names}
        return {"loss": fmean(record.loss for record in self.recent), **parts}

    @property
    def positives(self) -> float:
        """Matched boxes per image."""
        images = sum(record.images for record in self.recent)
        return sum(record.positives for record in self.recent) / images if images else 0.0

    def seconds_left(self) -> float | None:
        """Until the end of the run, evaluations included; None before the first step."""
        if not self.recent:
            return None
        steps = max(self.steps - self.recent[-1].step, 0)
        return steps * self._step_seconds() + max(self.evaluations - len(self.judged), 0) * self._judging_seconds()

    def _step_seconds(self) -> float:
        return median(sum(record.seconds.values()) for record in self.recent) if self.recent else 0.0

    def _judging_seconds(self) -> float:
        if self.judged:
            return median(self.judged[-5:])
        speed = self.images_per_second
        return JUDGING_SHARE * self.val_images / speed if speed else 0.0


def clock(seconds: float | None) -> str:
    """Seconds as people read them: 0:42, 12:05, 3:10:00, from two days on "75 days 11 h"; a dash where unknown."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
