"""The tables of `onestage data anchors`: priors by level and size, and what they make of truths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset
    from onestage.training.anchors import Anchors


def show_lattices(terminal: Terminal, found: Anchors, told: Mapping[str, Any]) -> None:
    """The model, a row for each level and size of its priors, and a sentence on each lattice."""
    from onestage.boxes.tiling import size_name, sizes_name, verdict
    from onestage.cli.groups import how_many

    counts = dict(told["parameters"])
    whole = counts.pop("all")
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    levels = how_many(len({one.level for one in found.tilings}), "level")
    classes = "1 class" if told["classes"] == 1 else f"{told['classes']:,} classes"
    terminal.facts([
        ("model", title_of(told)),
        ("parameters", f"{whole:,} with {classes}: {parts}"),
        ("priors", f"{told['priors']:,} on {levels}"),
    ])  # fmt: skip
    terminal.say()
    rows = []
    for one in found.tilings:
        mine = one.lattice
        spacing = "" if mine.spacing is None else _pair(mine.spacing_x, mine.spacing_y)
        rows.append((
            str(one.level), size_name(one.width, one.height), _pair(*one.stride), f"{one.cells[0]}x{one.cells[1]}",
            str(one.per_cell), f"{len(one):,}", spacing, f"{mine.offset[0]:g}, {mine.offset[1]:g}",
            _number(one.density), f"{mine.duplicates:,}", "yes" if mine.uniform else "no",
        ))  # fmt: skip
    columns = ("level", "size px", "stride", "cells", "per cell", "priors", "spacing", "first centre", "density",
               "duplicates", "uniform")  # fmt: skip
    terminal.table(columns, rows)
    terminal.say("density: side over spacing, how many priors overlap along a line", style="dim")
    terminal.say()
    for same in found.groups:
        sound = same[0].lattice.sound
        terminal.say(f"{sizes_name(same)}: {verdict(same)}", style=None if sound else "bold red")


def show_answers(terminal: Terminal, dataset: Dataset, told: Mapping[str, Any]) -> None:
    """How the truths of a set are answered: counts and quantiles, by priors, by side of the truth."""
    from onestage.cli.groups import how_many

    held = f"{how_many(len(dataset), 'image')}, {how_many(told['truths'], 'truth')}"
    ignored = f", {told['ignored']:,} to ignore" if told["ignored"] else ""
    facts = [("data", f"{dataset.root}, {dataset.split}: {held}{ignored}")]
    if told["lost"]:
        facts.append(("lost", f"{how_many(told['lost'], 'truth')} below one pixel of the input"))
    facts.append(("without a prior", f"{told['unanswered']:,}"))
    if told["forced"] is not None:
        facts.append(("forced", f"{told['forced']:,}, their best prior has an IoU below {told['threshold']:g}"))
    if told["best_iou"]:
        facts += [(words, _quantiles(told[key])) for words, key in (("best IoU", "best_iou"), ("side px", "side"))]
    terminal.facts(facts)
    if not told["truths"]:
        return
    terminal.say()
    rows = [
        (row["sizes"], str(row["level"]), f"{row['positives']:,}", f"{row['truths']:,}", _count(row["forced"]),
         _number(row["priors_per_truth"]), _number(row["median_best_iou"]))
        for row in told["by_group"]
    ]  # fmt: skip
    shared = ("forced", "priors per truth", "median best IoU")
    terminal.table(("priors", "level", "positives", "best of truths", *shared), rows)
    terminal.say()
    sides = [
        (f"{row['from']} to {row['to']}" if row["to"] else f"{row['from']} and more", f"{row['truths']:,}",
         f"{row['unanswered']:,}", _count(row["forced"]), _number(row["priors_per_truth"]),
         _number(row["median_best_iou"]))
        for row in told["by_side"]
    ]  # fmt: skip
    terminal.table(("side of truth px", "truths", "without a prior", *shared), sides)


def title_of(told: Mapping[str, Any]) -> str:
    """The model with its input size and options, as sheet and tables call it."""
    width, height = told["size"]
    fit = {"native": f" (fit native, scale {told['scale']:g})", "letterbox": " (fit letterbox)"}.get(told["fit"], "")
    return f"{told['model']} at {width}x{height}{fit}" + "".join(f", {k} {v}" for k, v in told["options"].items())


def _pair(x: float | None, y: float | None) -> str:
    one, two = ("-" if value is None else f"{value:g}" for value in (x, y))
    return one if one == two else f"{one}x{two}"


def _quantiles(values: Mapping[str, float]) -> str:
    names = {"0": "least", "0.5": "median", "1": "greatest"}
    return ", ".join(f"{names.get(q) or format(float(q), '.0%')} {value:g}" for q, value in values.items())


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
