"""One style of figures: losses, learning rates, scores, precision against recall, AP per class."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

import onestage.report.colours as colours
from onestage.records import FloatArray, IntArray, Metric

MOST_POINTS = 600
MOST_CURVES = 16
MOST_NAMED = 8  # curves; the legend of more would leave no room for them
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
DASHES = ("solid", "dot", "dash", "dashdot")

# Grey that reads on white and on black; the page puts the scheme's own text colour in its place.
INK, GRID = "#777777", "rgba(128,128,128,0.22)"


def losses(steps: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]] = ()) -> go.Figure:
    """The total loss and its weighted parts by step: thin as it was, thick as a running mean.

    `steps` are rows of steps.jsonl, `results` those of results.csv, whose val/<part> are dotted. Steps whose loss is
    not finite are marked at the lower edge.
    """
    figure = blank("optimiser step", "loss (weighted)")
    parts = list(dict.fromkeys(part for step in steps for part in _parts(step)))
    series = {"total": [step.get("loss") for step in steps]} if steps else {}
    series |= {part: [_parts(step).get(part) for step in steps] for part in parts if part != "total"}
    at = _numbers([step["step"] for step in steps])
    for index, (name, values) in enumerate(series.items()):
        colour = colours.NEUTRAL if name == "total" else colours.CLASSES[(index - 1) % len(colours.CLASSES)]
        _raw_and_smooth(figure, at, _numbers(values), name, colour)
        judged = [(row["step"], row[f"val/{name}"]) for row in results if _finite(row.get(f"val/{name}"))]
        if judged:
            figure.add_scatter(
                x=[step for step, _ in judged], y=[short(value) for _, value in judged], mode="lines+markers",
                line={"color": colour, "width": 1.5, "dash": "dot"}, marker={"size": 5},
                name=html.escape(f"{name}, validation"),
            )  # fmt: skip
    lost = at[~np.isfinite(_numbers(series.get("total", [])))]
    if len(lost):
        figure.add_scatter(
            x=lost[:200].tolist(), y=[0] * len(lost[:200]), mode="markers", name="not finite", cliponaxis=False,
            marker={"symbol": "x", "color": colours.WRONG, "size": 9},
        )  # fmt: skip
    figure.update_yaxes(rangemode="tozero")
    return figure


def learning_rates(steps: Sequence[Mapping[str, Any]]) -> go.Figure:
    """The learning rate of each parameter group by step."""
    figure = blank("optimiser step", "learning rate")
    groups = list(dict.fromkeys(group for step in steps for group in _mapping(step.get("lr"))))
    at = _numbers([step["step"] for step in steps])
    for index, group in enumerate(groups):
        values = _numbers([_mapping(step.get("lr")).get(group) for step in steps])
        keep = _thinned(values)
        figure.add_scatter(
            x=at[keep].tolist(), y=shortened(values[keep]), name=html.escape(group),
            mode="lines" if len(keep) > 2 else "markers",
            line={"color": colours.CLASSES[index % len(colours.CLASSES)], "width": 2, "dash": DASHES[index % 4]},
        )  # fmt: skip
    figure.update_yaxes(rangemode="tozero", tickformat="~g")
    figure.update_layout(showlegend=len(groups) > 1, hovermode="x unified")
    return figure


def scores(
    results: Sequence[Mapping[str, Any]], best: Metric | None = None, best_step: float | None = None
) -> go.Figure:
    """mAP50 and mAP50-95 by epoch; the best evaluation (that of `best_step`, else the highest) has a star.

    Scores of other protocols in the rows (metrics/widerface/APhard) follow, hidden where there are more than four.
    `best` is its mAP50 with an interval, drawn as an error bar where the two agree to 0.005: after a later judgement
    by other data or weights they need not.
    """
    figure = blank("epoch", "score")
    others = [key.removeprefix("metrics/") for key in dict.fromkeys(key for row in results for key in row)
              if key.startswith("metrics/") and key.count("/") > 1]  # fmt: skip
    names = ["mAP50", "mAP50-95", "precision", "recall", *others]
    for index, name in enumerate(names):
        column = f"metrics/{name}"
        rows = [row for row in results if _finite(row.get(column))]
        if not rows:
            continue
        minor = name in ("precision", "recall") or (name in others and len(others) > 4)
        dash = "dot" if minor else "solid"
        figure.add_scatter(
            x=[row.get("epoch", row["step"]) for row in rows], y=[short(row[column]) for row in rows],
            mode="lines" if minor else "lines+markers", name=name, marker={"size": 6},
            visible="legendonly" if minor else True,
            line={"color": colours.CLASSES[index % len(colours.CLASSES)], "width": 2, "dash": dash},
        )  # fmt: skip
    star = best_row(results, best_step)
    if star is not None:
        value = star["metrics/mAP50"]
        interval = best.interval if best is not None and abs(best.value - value) <= 0.005 else None
        bar = {"visible": False} if interval is None else {
            "type": "data", "symmetric": False, "array": [max(0.0, interval[1] - value)],
            "arrayminus": [max(0.0, value - interval[0])], "thickness": 1.5, "width": 5,
        }  # fmt: skip
        figure.add_scatter(
            x=[star.get("epoch", star["step"])], y=[short(value)], mode="markers", name="best", error_y=bar,
            marker={"symbol": "star", "size": 15, "color": colours.CLASSES[0], "line": {"color": "white", "width": 1}},
        )  # fmt: skip
    figure.update_yaxes(range=[0, 1.02])
    figure.update_layout(hovermode="x unified")
    return figure


def best_row(results: Sequence[Mapping[str, Any]], step: float | None = None) -> Mapping[str, Any] | None:
    """The evaluation at `step`, or else the one of the highest mAP50; None where none has a finite mAP50."""
    scored = [row for row in results if _finite(row.get("metrics/mAP50"))]
    named = [row for row in scored if row["step"] == step]
    return named[0] if named else max(scored, key=lambda row: float(row["metrics/mAP50"]), default=None)


def precision_recall(
    curves: Mapping[str, Mapping[str, Sequence[float]]], classes: Sequence[str] = (), score: float | None = None
) -> go.Figure:
    """Precision against recall, one curve per class; a dot where the score is `score`, the operating point.

    `curves` maps a class to "recall", "precision" and "scores" of equal length. Curves without points are left out,
    and of many only the first MOST_CURVES are drawn; more than MOST_NAMED have no legend. `classes` in order of labels
    gives each the colour that it has on pictures.
    """
    figure = blank("recall", "precision")
    drawable = drawable_curves(curves)
    for index, (name, curve) in enumerate(drawable.items()):
        label = list(classes).index(name) if name in classes else index
        colour, dash = colours.of_class(label), DASHES[label // len(colours.CLASSES) % 4]
        recall, precision = _numbers(curve.get("recall", [])), _numbers(curve.get("precision", []))
        said = _numbers(curve.get("scores", []))
        said = said if len(said) == len(recall) else np.full(len(recall), np.nan)
        figure.add_scatter(
            x=shortened(recall), y=shortened(precision), customdata=shortened(said), mode="lines",
            name=html.escape(name), legendgroup=html.escape(name), line={"color": colour, "width": 2, "dash": dash},
            hovertemplate="recall %{x:.2f}<br>precision %{y:.2f}<br>score ≥ %{customdata:.2f}",
        )  # fmt: skip
        at: list[int] = np.flatnonzero(said >= (np.inf if score is None else score)).tolist()
        if at:
            dot = {"color": colour, "size": 10, "line": {"color": "white", "width": 1.5}}
            figure.add_scatter(
                x=[short(recall[at[-1]])], y=[short(precision[at[-1]])], mode="markers", showlegend=False,
                legendgroup=html.escape(name), marker=dot,
                hovertemplate="operating point<br>recall %{x:.2f}<br>precision %{y:.2f}", name=html.escape(name),
            )  # fmt: skip
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(range=[0, 1.05])
    figure.update_layout(hovermode="closest", showlegend=len(drawable) <= MOST_NAMED)
    return figure


def drawable_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Mapping[str, Sequence[float]]]:
    """The first MOST_CURVES curves that have a point."""
    return dict([(name, curve) for name, curve in curves.items() if len(curve.get("recall", []))][:MOST_CURVES])


def class_bars(rows: Sequence[Metric], classes: Sequence[str] = ()) -> go.Figure:
    """AP of each class as a bar, the best on top, with its interval; undefined ones are left out."""
    figure = blank("AP at IoU 0.5", None)
    rows = sorted((row for row in rows if _finite(row.value)), key=lambda row: row.value)
    if not rows:
        return figure
    names = [row.class_name or "" for row in rows]
    ends = [row.interval or (row.value, row.value) for row in rows]
    labels = [list(classes).index(name) if name in classes else index for index, name in enumerate(names)]
    figure.add_bar(
        x=[short(row.value) for row in rows], y=list(range(len(rows))), orientation="h", width=0.62,
        marker={"color": [colours.of_class(label) for label in labels]},
        error_x={
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": INK,
            "array": [short(max(0.0, end[1] - row.value)) for end, row in zip(ends, rows, strict=True)],
            "arrayminus": [short(max(0.0, row.value - end[0])) for end, row in zip(ends, rows, strict=True)],
        },
        customdata=[[html.escape(name), row.n] for name, row in zip(names, rows, strict=True)],
        hovertemplate="%{customdata[0]}: %{x:.3f}<br>%{customdata[1]} truths<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=[html.escape(cut(name)) for name in names], showgrid=False,
        zeroline=False, automargin=True,
    )  # fmt: skip
    figure.update_layout(
        height=max(220, 90 + (26 if len(rows) <= 40 else 15) * len(rows)), hovermode="closest", showlegend=False
    )
    return figure


def blank(x_title: str, y_title: str | None) -> go.Figure:
    """An empty figure in the house's style, its axes named."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": GRID, "automargin": True, "ticks": ""}
    return go.Figure(
        layout=go.Layout(
            template=None, height=340, margin={"l": 56, "r": 14, "t": 34, "b": 46},
            paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
            font={"family": _FONT, "size": 13, "color": INK},
            xaxis={**axis, "title": {"text": x_title, "standoff": 8}},
            yaxis={**axis, "title": {"text": y_title or "", "standoff": 8}},
            legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
            hovermode="x", showlegend=True,
        )
    )  # fmt: skip


def _raw_and_smooth(figure: go.Figure, at: FloatArray, values: FloatArray, name: str, colour: str) -> None:
    keep = _thinned(values)
    name = html.escape(name)
    figure.add_scatter(
        x=at[keep].tolist(), y=shortened(values[keep]), mode="lines", opacity=0.32, legendgroup=name, showlegend=False,
        line={"color": colour, "width": 1}, hoverinfo="skip", name=name,
    )  # fmt: skip
    smooth = running_mean(values, max(1, len(values) // 40))
    every = np.unique(np.linspace(0, len(at) - 1, min(len(at), 240)).astype(np.int64)) if len(at) else np.arange(0)
    figure.add_scatter(
        x=at[every].tolist(), y=shortened(smooth[every]), mode="lines" if len(every) > 1 else "markers",
        legendgroup=name, name=name, marker={"color": colour, "size": 7}, line={"color": colour, "width": 2.5},
    )  # fmt: skip


def running_mean(values: FloatArray, half: int) -> FloatArray:
    """The mean of each value and its `half` neighbours to either side, over the finite ones; NaN where none is."""
    finite = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(finite)])
    index = np.arange(len(values))
    low, high = np.maximum(0, index - half), np.minimum(len(values), index + half + 1)
    n = count[high] - count[low]
    mean: FloatArray = np.divide(total[high] - total[low], n, out=np.full(len(values), np.nan), where=n > 0)
    return mean


def _thinned(values: FloatArray) -> IntArray:
    """Indices of at most about MOST_POINTS values: the least and the greatest of each stretch, so that spikes stay."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    low, high = np.where(np.isnan(values), np.inf, values), np.where(np.isnan(values), -np.inf, values)
    stretches = np.array_split(np.arange(len(values)), MOST_POINTS // 2)
    kept = [int(part[side]) for part in stretches for side in (np.argmin(low[part]), np.argmax(high[part]))]
    return np.unique(np.array([0, *kept, len(values) - 1], np.int64))


def cut(name: str, most: int = 24) -> str:
    """A name of at most `most` letters."""
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"


def _parts(step: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(step.get("weighted") or step.get("raw"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _numbers(values: Sequence[Any]) -> FloatArray:
    return np.array([value if isinstance(value, int | float) else np.nan for value in values], np.float64)


def short(value: float) -> float:
    """Five digits: what a screen shows."""
    return float(f"{value:.5g}")


def shortened(values: Sequence[float | None] | FloatArray) -> list[float | None]:
    """Each value as `short` has it; None, a gap in a curve, for what is no finite number."""
    return [None if value is None or not math.isfinite(value) else short(float(value)) for value in values]
