"""What each level of a network did, on a page: its share of the truths, IoU, class, objectness."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

import onestage.report.colours as colours
from onestage.experiments.levels import COLUMNS, Did, Tally, last_epoch, levels_in
from onestage.report.plots import blank, short

# So many stretches of steps have a point each: means over each stretch, weighted by its counts.
STRETCHES = 120
# The figures: name, title of the y axis, what is drawn solid and what dotted.
_FIGURES = (
    ("level_share", "share of the truths", "share", None),
    ("level_iou", "mean IoU with the truth", "iou", None),
    ("level_class", "mean probability of the true class", "cls", None),
    ("level_object", "mean objectness", "obj", "noobj"),
)
_LOST = (
    ("unanswered", "had no anchor that answers for them"),
    ("rewritten", "lost a box to another truth in the same cell"),
    ("capped", "lay beyond the largest number that counts in an image"),
)
Rows = Sequence[Mapping[str, Any]]


def level_panel(info: Mapping[str, Any], steps: Rows) -> tuple[dict[str, Any] | None, dict[str, go.Figure]]:
    """What the page's section on levels says, and its figures; None and nothing where no step tells of levels."""
    last = last_epoch(steps)
    if not last:
        return None, {}
    told = [row for row in steps if isinstance(row.get("scales"), list) and not row.get("skipped")]
    tally = Tally.of(last)
    did = tally.rows()
    levels = levels_in(info)
    names = tally.names(levels)
    fit = levels if len(levels) == len(did) else []
    reach = [level.reach for level in fit] or [""] * len(did)
    layers = [level.layer for level in fit] or [None] * len(did)
    known = any(layer is not None for layer in layers)
    rows = [
        {"name": names[place], "reach": reach[place], "colour": colours.of_class(place),
         "cells": [*([str(layers[place])] if known else []), f"{did[place].count:,}", *did[place].cells()]}
        for place in range(len(did))
    ]  # fmt: skip
    panel = {
        "columns": ["level", *(["layer"] if known else []), "count", *COLUMNS[1:]], "rows": rows,
        "said": said(names, tally), "lost": lost(told), "when": tally.when,
        "several": sum(tally.counts) > tally.truths,
    }  # fmt: skip
    return panel, figures(names, told)


def said(names: Sequence[str], tally: Tally) -> str:
    """Which level has what share: "Stride 8, small objects has 93.5 % of the 5,339 truths of steps 1 to 20; …"."""
    found = sorted(zip(names, tally.rows(), strict=True), key=lambda pair: -pair[1].count)
    if not sum(tally.counts):
        return f"No truth fell to any level in {tally.when}."
    shares = [f"{100 * (did.share or 0):.1f} %" if did.count else "none" for _, did in found]
    words = [f"{found[0][0]} has {shares[0]} of the {tally.counted} of {tally.when}"]
    words += [f"{name} {share}" for (name, _), share in zip(found[1:], shares[1:], strict=True)]
    sentence = f"{'; '.join(words)}."
    return sentence[:1].upper() + sentence[1:]


def lost(steps: Rows) -> list[str]:
    """Sentences on the truths that nothing learns, over all steps; none where every truth is learnt."""
    truths = sum(int(row.get("truths") or 0) for row in steps)
    sentences = []
    for key, words in _LOST:
        n = sum(value for row in steps if isinstance(value := row.get(key), int | float))
        if n and truths:
            sentences.append(f"In the whole run {n:,.0f} of {truths:,} truths ({100 * n / truths:.1f} %) {words}.")
    return sentences


def figures(names: Sequence[str], steps: Rows) -> dict[str, go.Figure]:
    """One figure for each of share, IoU, class and objectness; a curve for each level, told by its words."""
    size = max(1, -(-len(steps) // STRETCHES))
    stretches = [steps[i : i + size] for i in range(0, len(steps), size)]
    at = [(part[0]["step"] + part[-1]["step"]) / 2 for part in stretches]
    did = [Tally.of(part).rows() for part in stretches]
    found = {}
    for name, title, solid, dotted in _FIGURES:
        figure = blank("optimiser step", title)
        for key, dash in ((solid, "solid"), (dotted, "dot")):
            if key is None:
                continue
            for place, words in enumerate(names):
                values = [_value(row[place], key) if len(row) == len(names) else None for row in did]
                figure.add_scatter(
                    x=at, y=values, mode="lines" if len(at) > 2 else "markers", connectgaps=False,
                    name=html.escape(words), legendgroup=words, showlegend=dash == "solid",
                    line={"color": colours.of_class(place), "width": 2, "dash": dash}, marker={"size": 7},
                    hovertemplate=f"{html.escape(words)}: %{{y:.3f}}{' (all boxes)' if dash == 'dot' else ''}"
                    "<extra></extra>",
                )  # fmt: skip
        figure.update_yaxes(range=[0, 1.02])
        figure.update_layout(hovermode="x unified")
        found[name] = figure
    return found


def _value(did: Did, key: str) -> float | None:
    value = did.share if key == "share" else did.means[key]
    return None if value is None or value != value else short(value)
