"""What a score does not say, put together: calibration, confusion, curves by score, best scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onestage.evaluation import operating
from onestage.evaluation.calibration import calibration
from onestage.evaluation.confusion import confusion
from onestage.evaluation.pool import Pool
from onestage.evaluation.ranking import Ranking
from onestage.evaluation.resampling import DRAWS, laid_out
from onestage.records import IntArray


def details(
    pool: Pool, rankings: Sequence[Ranking], score: float | None, weights: IntArray | None, protocol: str
) -> dict[str, Any]:
    """Calibration, confusion matrix, curves by score and the sureness of each class's best score, as JSON.

    `rankings` are those of the VOC protocol `protocol` at IoU 0.5, `score` is the operating point (None: nothing
    found), `weights` (B, I) the bootstrap's (None: no intervals).
    """
    origin = {"protocol": protocol, "iou": 0.5}
    offset = 1.0 if protocol.endswith("+1") else 0.0
    few = None if weights is None else laid_out(weights[:DRAWS])
    best = {} if few is None else {
        name: operating.best_intervals(ranking, few)
        for name, ranking in zip(pool.classes, rankings, strict=True) if ranking.n_truths
    }  # fmt: skip
    return {
        "calibration": origin | calibration(rankings, pool.classes, weights, at=score),
        "confusion": confusion(pool, score, 0.5, offset).as_dict() | {"protocol": protocol},
        "confidence": origin | operating.confidence_curves(rankings, pool.classes),
        "best": best,
    }
