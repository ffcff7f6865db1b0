"""The judged result as the run folder keeps it, and what a score floor may have cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from onestage.evaluation.average_precision import average_precisions, mean_present
from onestage.evaluation.judgement import Judgement
from onestage.evaluation.operating import Curve
from onestage.evaluation.pool import Pool
from onestage.evaluation.ranking import Ranking
from onestage.records import Metrics

LOWEST_FLOOR = 0.01


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Detections judged: rows of metrics, curves per class, the operating point, and what to keep in mind.

    `score_floor` is the score below which nothing was kept (None: nothing known, nothing found). `truncated` says
    that it lies above 0.01, so that average precisions may lack the end of their curves; `notes` says by how much.
    `details` is reckoned when first asked for.
    """

    metrics: Metrics
    curves: Mapping[str, Mapping[str, Curve]]
    operating_point: Mapping[str, Any]
    protocols: tuple[str, ...]
    n_images: int
    score_floor: float | None
    truncated: bool = False
    notes: tuple[str, ...] = ()
    look_closer: Callable[[], dict[str, Any]] = field(default=dict, repr=False)

    @cached_property
    def details(self) -> dict[str, Any]:
        """What the scores do not say, as JSON: "calibration", "confusion", "confidence" (curves by score), "best"."""
        return self.look_closer()

    def as_dict(self) -> dict[str, Any]:
        """The content of metrics.json."""
        point, more = dict(self.operating_point), dict(self.details)
        for name, row in more.pop("best", {}).items():
            own = point["classes"][name]
            point["classes"] = point["classes"] | {name: own | {"best": own["best"] | row}}
        return {
            "protocols": list(self.protocols), "n_images": self.n_images, "score_floor": self.score_floor,
            "truncated": self.truncated, "notes": list(self.notes), "rows": self.metrics.as_list(),
            "curves": {name: dict(classes) for name, classes in self.curves.items()},
            "operating_point": point, **more,
        }  # fmt: skip


def truncation(
    pool: Pool, judged: Mapping[str, Judgement], score_floor: float | None
) -> tuple[float | None, str | None]:
    """The score floor, given or else the lowest score seen, and a note where it lies above 0.01 and scores rest on it.

    The note bounds what is missing: the headline there would be if every truth not found were the next detection, and
    nothing else came after. No detections below the floor could give more, and those very ones would give it, so
    the bound cannot be lowered without seeing them (only COCO's limit of 100 per image can make it too high). Where a
    protocol does not rank detections class by class, the note says that no bound is known.
    """
    judged = {name: judgement for name, judgement in judged.items() if judgement.whole_curve}
    floor = score_floor if score_floor is not None else (float(pool.score.min()) if len(pool.score) else None)
    if floor is None or floor <= LOWEST_FLOOR or not judged:
        return floor, None
    bounds = _missing(judged)
    told = [f"{most:.4f} of {name}'s" for name, most in bounds.items() if most is not None]
    cost = f"; at most {', '.join(told)} mean AP could be missing" if told else ""
    silent = [name for name, most in bounds.items() if most is None]
    cost += f"; how much of {', '.join(silent)} could be missing is not known" if silent else ""
    how = "the lowest score is" if score_floor is None else "nothing was kept below score"
    return (
        floor,
        f"average precision is truncated: {how} {floor:.4g}, and it needs detections down to {LOWEST_FLOOR}{cost}",
    )


def _missing(judged: Mapping[str, Judgement]) -> dict[str, float | None]:
    """The most that each protocol's mean AP could gain by detections after its last; None where that is not known.

    Without truths there is no AP to lack anything.
    """
    result: dict[str, float | None] = {}
    for name, judgement in judged.items():
        ranked = judgement.rankings.get("all") or judgement.rankings.get("") or []
        if judgement.rule is None or not ranked:
            result[name] = None
        elif sum(ranking.n_truths for ranking in ranked):
            ones = np.ones((1, judgement.n_images), np.int64)
            now = average_precisions(ranked, judgement.rule, ones)
            best = average_precisions([_completed(ranking) for ranking in ranked], judgement.rule, ones)
            gain = np.nan_to_num(best - now) if judgement.absent_as_zero else best - now
            result[name] = float(mean_present(gain.ravel()))
    return result


def _completed(ranking: Ranking) -> Ranking:
    """The ranking if, after its last detection, every truth not found at a threshold were found at once."""
    found = ranking.hit.sum(1)
    most = ranking.n_truths - int(found.min()) if ranking.n_truths else 0
    more = np.arange(most) < (ranking.n_truths - found)[:, None] if most else np.zeros((len(found), 0), np.bool_)
    anywhere = int(np.argmax(ranking.truths > 0)) if most else 0  # with all weights 1 any image will do
    return replace(
        ranking,
        image=np.concatenate([ranking.image, np.full(most, anywhere)]),
        score=np.concatenate([ranking.score, np.zeros(most)]),
        rank=np.concatenate([ranking.rank, np.zeros(most, np.int64)]),
        hit=np.concatenate([ranking.hit, more], axis=1),
        counted=np.concatenate([ranking.counted, more], axis=1),
    )
