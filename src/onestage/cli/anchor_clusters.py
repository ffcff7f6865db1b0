"""`onestage data anchors --cluster`: anchors made from a set, ready to paste, beside the model's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage.boxes.anchor_fit import Heads
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset
    from onestage.training.anchors import Remade


def clusters_command(
    terminal: Terminal, dataset: Dataset, model: str, keys: Mapping[str, Any], options: Mapping[str, Any],
    draw: Path | None,
) -> None:  # fmt: skip
    """Make anchors as the checked `keys` ask, print them with the comparison, and the picture where `draw` names one.

    Images come to the input as the model trains by default where `fit` is not among the keys.
    """
    from onestage.models import defaults
    from onestage.training.anchors import remade

    fit = keys.get("fit") or defaults(model).get("fit", "squash")
    with terminal.waiting("making anchors"):
        found = remade(
            dataset, model, keys["cluster"], count=keys.get("count"), seed=keys.get("seed", 0), size=keys.get("size"),
            fit=fit, **options,
        )  # fmt: skip
    _show(terminal, dataset, found)
    if draw is not None:
        from onestage.report.anchor_shapes import write_shapes_sheet

        write_shapes_sheet(draw, found.refit, found.held.sides, _title(found))
        terminal.say()
        terminal.say(f"picture: {draw}")
    told = {"data": str(dataset.root), "split": dataset.split, **found.as_dict(), "options": dict(options)}
    terminal.result({**told, "cfg": cfg_lines(found), "picture": None if draw is None else str(draw)})


def cfg_lines(found: Remade) -> dict[str, Any]:
    """The lines of a darknet cfg: `anchors` and `num` alike in every head, `mask` and the `filters` before each."""
    heads = found.refit.new
    return {
        "anchors": ",  ".join(f"{w / heads.unit:.6g},{h / heads.unit:.6g}" for w, h in heads.anchors),
        "num": len(heads.anchors),
        "heads": [
            {"stride": stride, "mask": ",".join(map(str, mask)), "filters": len(mask) * (5 + found.classes)}
            for stride, mask in zip(heads.strides, heads.masks, strict=True)
        ],
    }  # fmt: skip


def recipe_line(heads: Heads) -> str:
    """A recipe's `options` in a line: YAML, every pair and every list with its commas."""
    return f"anchors: {_lists(heads.anchors)}, masks: {_lists(heads.masks)}"


def _lists(rows: Sequence[Sequence[float]]) -> str:
    return "[" + ", ".join("[" + ", ".join(f"{value:g}" for value in row) + "]" for row in rows) + "]"


def _title(found: Remade) -> str:
    return f"{found.model} at {found.size[0]}x{found.size[1]}, fit {found.fit}"


def _show(terminal: Terminal, dataset: Dataset, found: Remade) -> None:
    from onestage.boxes.anchor_fit import WARNING
    from onestage.cli.groups import how_many

    held, made = found.held, found.refit
    lost = [f"{held.lost:,} below one pixel of the input left out"] * bool(held.lost)
    lost += [f"{held.ignored:,} to ignore"] * bool(held.ignored)
    counts = f"{how_many(held.images, 'image')}, {how_many(len(held.sides), 'truth')}"
    terminal.facts([
        ("model", _title(found)),
        ("data", f"{dataset.root}, {dataset.split}: {', '.join([counts, *lost])}"),
        ("anchors", f"{len(made.new.anchors)} by {made.how} under IoU, seed {made.seed}"),
    ])  # fmt: skip
    terminal.say()
    rows = []
    for head in made.old.finest_first:
        sides = [", ".join(f"{w:g}x{h:g}" for w, h in _of(heads, head)) for heads in (made.old, made.new)]
        loads = [f"{100 * fit.load[head]:.1f} %" for fit in (made.old_fit, made.new_fit)]
        rows.append((f"stride {made.old.strides[head]:g}", *sides, *loads))
    if made.old_fit.unowned:
        rows.append(("no head", "", "", f"{100 * made.old_fit.unowned:.1f} %", "0.0 %"))
    columns = ("head", "own anchors px", f"{made.how} px", "truths: own", made.how)
    terminal.table(columns, rows, left=3)
    terminal.say()
    terminal.table(("fit", "own", made.how), _fit_rows(found))
    terminal.say()
    _paste(terminal, found)
    terminal.say()
    terminal.say(f"verdict: {made.verdict}", style="bold")
    if made.advice != "keep":
        terminal.say(f"and {WARNING}", style="dim")


def _of(heads: Heads, head: int) -> list[tuple[float, float]]:
    return [heads.anchors[at] for at in heads.masks[head]]


def _fit_rows(found: Remade) -> list[tuple[str, str, str]]:
    made = found.refit
    own, new = made.old_fit, made.new_fit
    gain = made.gain
    on = "on held-out images" if gain.held_out else "on the same images"
    shares = [
        ("mean IoU with the best", own.mean_iou, new.mean_iou), ("IoU 0.5 or more", own.recall, new.recall),
        ("within a ratio of 4", own.within, new.within), ("smaller than every anchor", own.below, new.below),
    ]  # fmt: skip
    rows = [(name, f"{100 * one:.1f} %", f"{100 * two:.1f} %") for name, one, two in shares]
    interval = f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
    return [*rows, (f"points of mean IoU, {on}", "", interval)]


def _paste(terminal: Terminal, found: Remade) -> None:
    """The lines for a cfg and for a recipe, unbroken."""
    lines = cfg_lines(found)
    terminal.say("for a cfg, in each [yolo] or [region]:", style="dim")
    terminal.say(f"anchors = {lines['anchors']}")
    terminal.say(f"num = {lines['num']}")
    for head in lines["heads"] if found.refit.new.unit == 1 else ():
        terminal.say(f"mask = {head['mask']}    (stride {head['stride']:g}; filters = {head['filters']} before it)")
    terminal.say("for a recipe:", style="dim")
    terminal.say(f"options: {{{recipe_line(found.refit.new)}}}")
