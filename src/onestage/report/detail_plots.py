"""Figures beyond the scores: F1 by score, reliability, confusion, hits against false detections."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

import onestage.report.colours as colours
from onestage.evaluation.confusion import Confusion
from onestage.records import IntArray
from onestage.report.plots import DASHES, GRID, INK, MOST_CURVES, MOST_NAMED, blank, cut, short, shortened

MOST_CELLS = 30  # classes in a matrix; of more only the most confused are shown
MOST_COUNTED = 12  # classes whose counts are written into the matrix
OTHERS = "all others"


def _clear(colour: str, opacity: float) -> str:
    return f"rgba({','.join(map(str, colours.rgb(colour)))},{opacity})"


_SCALE = (  # red for errors below the middle, blue above, both clear where there is little
    (0.0, colours.WRONG), (0.499, _clear(colours.WRONG, 0.03)), (0.5, "rgba(128,128,128,0.07)"),
    (0.501, _clear(colours.CLASSES[0], 0.03)), (1.0, colours.CLASSES[0]),
)  # fmt: skip


def f1_by_score(
    confidence: Mapping[str, Any], classes: Sequence[str] = (), score: float | None = None, most: Sequence[str] = ()
) -> go.Figure:
    """F1 by the score from which on detections are kept, one curve per class and a thick one for their mean.

    `confidence` is that of metrics.json; `score` the operating point, drawn as a line; `most` are the classes in order
    of importance, of which MOST_CURVES are drawn.
    """
    figure = blank("keep detections from score", "F1")
    at, each = confidence.get("scores") or [], confidence.get("classes") or {}
    order = [name for name in most if name in each] + [name for name in each if name not in most]
    for index, name in enumerate(order[:MOST_CURVES]):
        label = list(classes).index(name) if name in classes else index
        alone = len(order) == 1
        figure.add_scatter(
            x=at, y=shortened(each[name]["F1"]), mode="lines", name=html.escape(cut(name)),
            opacity=1.0 if len(order) <= MOST_NAMED else 0.6,
            line={
                "color": colours.of_class(label), "width": 2.5 if alone else 1.8,
                "dash": DASHES[label // len(colours.CLASSES) % 4],
            },
            hovertemplate="score ≥ %{x:.2f}<br>F1 %{y:.2f}",
        )  # fmt: skip
    mean = (confidence.get("mean") or {}).get("F1") or []
    if len(order) > 1:
        figure.add_scatter(
            x=at, y=shortened(mean), mode="lines", name=f"mean of {len(order)} classes",
            line={"color": INK, "width": 4}, hovertemplate="score ≥ %{x:.2f}<br>mean F1 %{y:.2f}",
        )  # fmt: skip
    if score is not None and figure.data:
        figure.add_vline(x=short(score), line={"color": INK, "width": 1.5, "dash": "dot"})
    if at:
        figure.update_xaxes(range=[at[0], at[-1]])
    figure.update_yaxes(range=[0, 1.05])
    figure.update_layout(height=420, hovermode="closest", showlegend=1 < len(order) <= MOST_NAMED)
    return figure


def reliability(calibration: Mapping[str, Any]) -> go.Figure:
    """The share of hits in each bin of score beside the score itself, with intervals; below, how many there are.

    What a bar lacks to its mean score is hatched red (too sure), what it has more is hatched green (too unsure).
    """
    figure = blank("score", "share that are hits")
    rows = [row for row in (calibration.get("bins") or {}).get("equal_width") or [] if row["n"]]
    if not rows:
        return figure
    n_bins = calibration.get("n_bins", 10)
    middle = [round((row["low"] + row["high"]) / 2, 6) for row in rows]
    share, said = np.array([row["hit_share"] for row in rows]), np.array([row["mean_score"] for row in rows])
    ends = [row["interval"] or (row["hit_share"], row["hit_share"]) for row in rows]
    facts = [[row["n"], row["n_images"], short(row["mean_score"]), short(row["gap"])] for row in rows]
    width = 0.92 / n_bins
    figure.add_bar(
        x=middle, y=shortened(share), width=width, name="share of hits", marker={"color": colours.CLASSES[0]},
        error_y={
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": INK,
            "array": [short(max(0.0, end[1] - value)) for end, value in zip(ends, share, strict=True)],
            "arrayminus": [short(max(0.0, value - end[0])) for end, value in zip(ends, share, strict=True)],
        },
        customdata=facts,
        hovertemplate="%{customdata[0]} detections in %{customdata[1]} images<br>mean score %{customdata[2]:.2f}"
        "<br>share of hits %{y:.2f}<br>gap %{customdata[3]:+.2f}<extra></extra>",
    )  # fmt: skip
    for sign, name, colour, depth in (
        (-1, "too sure", colours.WRONG, 0.22), (1, "too unsure", colours.CLASSES[2], 0.55),
    ):  # fmt: skip
        here = np.sign(share - said) == sign
        if here.any():
            figure.add_bar(
                x=np.array(middle)[here].tolist(), y=shortened(np.abs(share - said)[here]), width=width, name=name,
                base=shortened(np.minimum(share, said)[here]), hoverinfo="skip",
                marker={"color": _clear(colour, depth), "line": {"color": colour, "width": 1.5},
                        "pattern": {"shape": "/", "fgcolor": colour, "size": 6, "solidity": 0.25}},
            )  # fmt: skip
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": INK, "width": 1.5, "dash": "dash"}, hoverinfo="skip",
        name="as scored",
    )  # fmt: skip
    figure.add_bar(
        x=middle, y=[row["n"] for row in rows], width=width, marker={"color": colours.NEUTRAL}, yaxis="y2",
        showlegend=False, hovertemplate="%{y} detections<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(range=[0, 1], dtick=0.2, anchor="y2")
    figure.update_layout(
        height=420, barmode="overlay", hovermode="closest", yaxis={"range": [0, 1.02], "domain": [0.3, 1]},
        yaxis2={
            "domain": [0, 0.2], "type": "log", "title": {"text": "detections", "standoff": 8}, "gridcolor": GRID,
            "range": [0, float(np.ceil(np.log10(max(row["n"] for row in rows) * 1.05)))], "dtick": _decades(rows),
            "automargin": True, "zeroline": False, "exponentformat": "none", "separatethousands": True,
        },
    )  # fmt: skip
    return figure


def confusion_map(confusion: Confusion) -> go.Figure:
    """The confusion matrix, rows truths, columns what was said: blue on the diagonal, red errors, by share of the row.

    Of more than MOST_CELLS classes only the most confused are shown, the rest together; counts stand in the cells of up
    to MOST_COUNTED classes.
    """
    figure = blank("said", "truth")
    if not confusion.counts.any():
        return figure
    counts, names = _folded(confusion)
    n = len(names)
    rows, columns = [*names, "background"], [*names, "missed"]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    sign = np.where(np.eye(n + 1, dtype=bool), 1.0, -1.0)
    if names[-1:] == [OTHERS]:
        sign[n - 1, n - 1] = 0.0
    depth = sign * np.sqrt(shares)  # the root, so that small shares can be seen
    figure.add_heatmap(
        z=depth.round(4).tolist(), x=list(range(n + 1)), y=list(range(n + 1)), zmin=-1, zmax=1, showscale=False,
        xgap=1, ygap=1, colorscale=_SCALE,
        customdata=[[[html.escape(r), html.escape(c), int(counts[i, j]), short(float(shares[i, j]))]
                     for j, c in enumerate(columns)] for i, r in enumerate(rows)],
        hovertemplate="truth %{customdata[0]}<br>said %{customdata[1]}<br>%{customdata[2]:,}, "
        "%{customdata[3]:.1%} of the row<extra></extra>",
    )  # fmt: skip
    for i, j in np.argwhere(counts).tolist() if n <= MOST_COUNTED else ():
        strong = {"color": "white"} if abs(depth[i, j]) > 0.6 else {}  # else the page's own ink
        figure.add_annotation(x=j, y=i, text=f"{counts[i, j]:,}", showarrow=False, font=strong)
    for axis, ticks in ((figure.update_xaxes, columns), (figure.update_yaxes, rows)):
        axis(
            tickvals=list(range(n + 1)), ticktext=[html.escape(cut(name, 16)) for name in ticks], showgrid=False,
            zeroline=False, automargin=True,
        )  # fmt: skip
    for line in ({"x0": n - 0.5, "x1": n - 0.5, "y0": -0.5, "y1": n + 0.5},
                 {"x0": -0.5, "x1": n + 0.5, "y0": n - 0.5, "y1": n - 0.5}):  # fmt: skip
        figure.add_shape(type="line", line={"color": INK, "width": 1.5}, **line)
    figure.update_xaxes(side="bottom", tickangle=0 if n <= 4 else -50)
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(
        height=130 + int(np.clip(300 / (n + 1), 21, 64)) * (n + 1) + (0 if n <= 4 else 60), hovermode="closest",
        showlegend=False, margin={"l": 56, "r": 14, "t": 12, "b": 46},
    )  # fmt: skip
    return figure


def found_by_false(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> go.Figure:
    """Share of truths found against the number of false detections, one curve per name: FDDB's ROC."""
    figure = blank("false detections in the whole set", "share of truths found")
    for index, (name, curve) in enumerate(curves.items()):
        if not len(curve.get("false_positives", [])):
            continue
        figure.add_scatter(
            x=shortened(curve["false_positives"]), y=shortened(curve["true_positive_rate"]), mode="lines",
            customdata=shortened(curve["scores"]), name=html.escape(name),
            line={"color": colours.of_class(index), "width": 2, "dash": DASHES[index // len(colours.CLASSES) % 4]},
            hovertemplate="%{x} false<br>%{y:.3f} found<br>score ≥ %{customdata:.3f}",
        )  # fmt: skip
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(range=[0, 1.05])
    figure.update_layout(hovermode="closest", showlegend=len(figure.data) > 1)
    return figure


def _folded(confusion: Confusion) -> tuple[IntArray, list[str]]:
    """The counts of the most confused classes, all others in one; names without background and missed."""
    n = len(confusion.classes)
    if n <= MOST_CELLS:
        return confusion.counts, list(confusion.classes)
    between = confusion.counts[:n, :n].copy()
    np.fill_diagonal(between, 0)
    chosen = np.sort(np.argsort(-(between.sum(0) + between.sum(1)), kind="stable")[: MOST_CELLS - 6])
    place = np.full(n + 1, len(chosen))
    place[chosen] = np.arange(len(chosen))
    place[n] = len(chosen) + 1
    counts = np.zeros((len(chosen) + 2,) * 2, np.int64)
    np.add.at(counts, (place[:, None], place[None]), confusion.counts)
    return counts, [*(confusion.classes[k] for k in chosen), OTHERS]


def _decades(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(1, math.ceil(math.ceil(math.log10(max(int(row["n"]) for row in rows))) / 3))
