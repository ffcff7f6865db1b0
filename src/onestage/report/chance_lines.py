"""Levels in the figure of losses that say what the class loss means: chance, and equal scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from onestage.experiments.curve_rules import Facts
from onestage.experiments.curve_rules.seen import Seen
from onestage.records import FloatArray
from onestage.report.plots import INK, running_mean, short

NAMES = ("chance", "equal scores")
# Points of a level that moves; one that does not has two.
_POINTS = 200
_SAME = 0.005


def with_levels(
    figure: go.Figure, facts: Facts, steps: Sequence[Mapping[str, Any]], weights: Mapping[str, float]
) -> go.Figure:
    """The figure of losses with what a head that sees nothing reaches, and what equal scores give; `steps` as there.

    Below chance a classifier has begun to look at the image. Both are weighted as the curve beside them, by `weights`,
    and follow the negatives that were really mined for each positive: where an image has too few, the levels sink. A
    loss whose levels are not known, such as a focal one, gets none.
    """
    rows = [seen for seen in map(Seen, steps) if not seen.skipped and facts.class_part in seen.raw]
    if not rows:
        return figure
    ratios = _ratios(rows, facts.ratio)
    weight = float(weights.get(facts.class_part, 1.0))
    of_ratio: tuple[Callable[[float], float | None], ...] = (lambda r: facts.chance_level(0.0, r), facts.start_level)
    for name, level, dash in zip(NAMES, of_ratio, ("dash", "dot"), strict=True):
        at, values = [rows[0].step, rows[-1].step], ratios[[0, -1]]
        if np.ptp(ratios) > _SAME * ratios.max(initial=1):
            kept = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _POINTS)).astype(np.int64))
            at, values = [rows[index].step for index in kept], ratios[kept]
        levels = [level(float(ratio)) for ratio in values]
        if any(value is None or value <= 0 for value in levels):
            continue
        _line(figure, name, at, [weight * float(value or 0) for value in levels], dash, float(values[-1]))
    return figure


def has_levels(figure: go.Figure) -> bool:
    """Whether `with_levels` found any."""
    return any(str(trace.name).startswith(NAMES[0]) for trace in figure.data)


def _ratios(rows: Sequence[Seen], asked: float) -> FloatArray:
    """Negatives for each positive, as a running mean; what the recipe asks for where a row does not say."""
    own = [
        row.negatives / row.positives if row.negatives is not None and row.positives else asked for row in rows
    ]  # fmt: skip
    return running_mean(np.array(own, np.float64), max(1, len(rows) // 40))


def _line(
    figure: go.Figure, name: str, at: Sequence[float], levels: Sequence[float], dash: str, ratio: float
) -> None:  # fmt: skip
    figure.add_scatter(
        x=list(at), y=[short(level) for level in levels], mode="lines", name=f"{name} {levels[-1]:.3f}",
        line={"color": INK, "width": 1.5, "dash": dash},
        hovertemplate=f"class loss at {name}, {ratio:.3g} negatives to a positive: %{{y:.4f}}<extra></extra>",
    )  # fmt: skip
