"""What happened at which step, drawn into a figure: stages, incidents, where a run went on."""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go

import onestage.report.colours as colours
from onestage.report.plots import INK, cut

# More lines than these would hide the curves.
MOST_LINES = 12


def marked(figure: go.Figure, marks: Sequence[tuple[float, str, str]], incidents: bool = True) -> go.Figure:
    """The figure with its marks (`course.marks`): a line for each stage and resume, a triangle for each incident."""
    lines = [mark for mark in marks if mark[1] != "incident"]
    for at, kind, words in lines[:MOST_LINES]:
        figure.add_vline(
            x=at, line={"color": INK, "width": 1, "dash": "dot" if kind == "resumed" else "dash"}, opacity=0.7,
            annotation={"text": html.escape(cut(words or kind)), "textangle": -90, "yanchor": "top", "xanchor": "right",
                        "font": {"size": 11, "color": INK}, "xshift": -1},
        )  # fmt: skip
    said = [mark for mark in marks if mark[1] == "incident"] if incidents else []
    if said:
        figure.add_scatter(
            x=[at for at, _, _ in said], y=[0] * len(said), mode="markers", name="incident", cliponaxis=False,
            text=[html.escape(words) for _, _, words in said], hovertemplate="step %{x}: %{text}<extra></extra>",
            marker={"symbol": "triangle-up", "size": 11, "color": colours.WRONG},
        )  # fmt: skip
    return figure
