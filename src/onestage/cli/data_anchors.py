"""`onestage data anchors`: a model's priors as a lattice, and how they answer for the truths of a set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.errors import UsageError

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset
    from onestage.training.anchors import Anchors, Shown

EXAMPLES = (
    ("data anchors model=faceboxes options.layout=symmetric", "where a model's priors stand, and whether any coincide"),
    ("data anchors photos/ model=ssd300", "how they would answer for the truths of a set, before any training"),
    ("data anchors photos/ model=faceboxes size=640 image=a.jpg --draw a.png", "one image of it, drawn"),
)
KEYS = (
    ("model", "ssd-lite0", "anchors: a model by name; it is built at random, nothing is fetched"),
    ("size", "the model's", "anchors: input size in pixels, one number or [width, height]"),
    ("fit", "squash", "anchors: how images come to the input size: squash or letterbox"),
    ("options.NAME", "the model's", "anchors: an option of the model, such as options.layout=symmetric"),
    ("split", "train", "anchors: train, val, test, a set's own name, or all"),
    ("image", "all of the set", "anchors: only these images, by id, file name or path; several as [a,b]"),
)
FITS = ("squash", "letterbox")
LARGEST = 16_384  # pixels of a side of the input
MOST = 6  # images of one picture


def anchors_command(terminal: Terminal, places: Sequence[str], keys: Mapping[str, Any], draw: Path | None) -> None:
    """Print the lattices, the answers where there are annotations, and write the picture where `draw` names a file."""
    from onestage.cli.words import listed

    options = _checked(keys)
    if draw is not None:
        _refuse_place(draw)
    model, wanted = str(keys.get("model", "ssd-lite0")), listed(keys.get("image")) or ()
    _refuse_model(model)
    data, photos = _sorted_out(places)
    if wanted and data is None:
        raise UsageError("image= names images of a data set, and none is given", hint="onestage data anchors DATA …")
    with terminal.waiting("loading torch"):
        from onestage.training.anchors import anchors, chosen_set
    dataset = None
    if data is not None:
        dataset = chosen_set(
            data, str(keys.get("split", "train")), wanted, seed=keys.get("seed", 0),
            allow_loss=keys.get("allow_loss", False),
        )  # fmt: skip
    classes = None if dataset is None else len(dataset.classes)
    found = anchors(model, classes, _size(keys.get("size")), keys.get("fit", "squash"), **options)
    told = found.as_dict() | {"options": options}
    _show_lattices(terminal, found, told)
    if dataset is not None:
        with _bar(terminal, len(dataset)) as progress:
            answers = found.answers(dataset, progress)
        told |= {"data": data, "split": dataset.split, "images": [str(image.id) for image in dataset.images][:MOST]}
        told["answers"] = answers.as_dict() | {"by_group": found.answer_rows(answers)}
        terminal.say()
        _show_answers(terminal, dataset, found, told["answers"])
    elif photos:
        terminal.say()
        terminal.say(f"{photos[0]} has no annotations here: only the lattice" + " is drawn" * (draw is not None))
    if draw is not None:
        from onestage.report.anchor_sheet import write_anchor_sheet

        shown = _pictures(found, dataset, photos, several=bool(wanted))
        with terminal.waiting(f"writing {draw}"):
            write_anchor_sheet(draw, found, shown, _title(told))
        terminal.say()
        terminal.say(f"picture: {draw}")
    terminal.result({**told, "picture": None if draw is None else str(draw)})


def _checked(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options among the keys; UsageError that names every key and value that cannot be used."""
    from onestage.cli.words import is_number, known_only

    known = [key for key, _, _ in KEYS if key != "options.NAME"] + ["seed", "allow_loss"]
    plain = {key: value for key, value in keys.items() if key != "options" and not key.startswith("options.")}
    known_only("data anchors", plain, [*known, "options"])
    problems = []
    for key, value in plain.items():
        if key == "fit" and value not in FITS:
            problems.append(f"fit: expected {' or '.join(FITS)}, got {value!r}")
        elif key == "seed" and not (isinstance(value, int) and is_number(value, 0, 2**63)):
            problems.append(f"seed: expected a whole number, got {value!r}")
        elif key == "allow_loss" and not isinstance(value, bool):
            problems.append(f"allow_loss: expected true or false, got {value!r}")
        elif key in ("model", "split") and not isinstance(value, str):
            problems.append(f"{key}: expected text, got {value!r}")
        elif key == "size" and value is not None and _sides(value) is None:
            problems.append(f"size: expected a number or [width, height], 1 to {LARGEST} pixels, got {value!r}")
    if not isinstance(keys.get("options") or {}, Mapping):
        problems.append(f"options: expected NAME: value, got {keys['options']!r}")
    if problems:
        raise UsageError("data anchors: values that cannot be used", problems=problems)
    given = {key.removeprefix("options."): value for key, value in keys.items() if key.startswith("options.")}
    return {**(keys.get("options") or {}), **given}


def _sides(value: Any) -> tuple[int, int] | None:
    """[width, height], one number for both, or the text 640x480; None for anything else."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)[x,](\d+)", value)):
        value = [int(match[1]), int(match[2])]
    sides = [value, value] if isinstance(value, int) else value
    whole = isinstance(sides, list) and len(sides) == 2 and all(type(side) is int for side in sides)
    return (sides[0], sides[1]) if whole and all(1 <= side <= LARGEST for side in sides) else None


def _size(value: Any) -> tuple[int, int] | None:
    return None if value is None else _sides(value)


def _refuse_model(name: str) -> None:
    """ModelError for an unknown model, before torch is loaded."""
    from onestage.errors import ModelError, did_you_mean
    from onestage.models import MODELS

    if name not in MODELS:
        raise ModelError(f"unknown model {name!r}{did_you_mean(name, MODELS)}", hint=f"one of: {', '.join(MODELS)}")


def _refuse_place(path: Path) -> None:
    """UsageError where the picture cannot be written under that name, or where somebody's file lies; StorageError."""
    from onestage.experiments.storage import make_room
    from onestage.report.anchor_sheet import is_anchor_sheet

    if path.suffix.lower() != ".png":
        raise UsageError(f"--draw {path}: expected a name that ends in .png")
    if path.is_file() and not is_anchor_sheet(path):
        raise UsageError(
            f"--draw {path}: a file of that name is there and `data anchors` did not write it", hint="--draw OTHER.png"
        )
    make_room(path, "--draw")


def _sorted_out(places: Sequence[str]) -> tuple[str | None, list[Path]]:
    """The data set that is meant, or the images without annotations; neither where nothing is named."""
    from onestage.data.formats import recognise
    from onestage.data.formats.files import IMAGE_SUFFIXES
    from onestage.data.samples import SAMPLES
    from onestage.data.spec import read_spec
    from onestage.deploy.sources import sources

    if not places:
        return None, []
    path = Path(places[0]).expanduser()
    if len(places) == 1 and path.suffix.lower() not in IMAGE_SUFFIXES and not set("*?[") & set(places[0]):
        known = places[0] in SAMPLES or not path.exists() or read_spec(path) is not None or bool(recognise(path))
        if known or not path.is_dir():
            return places[0], []
    return None, sources(places)


@contextmanager
def _bar(terminal: Terminal, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over the images, on a terminal."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal.console, disable=not terminal.live, transient=True) as bar:
        task = bar.add_task("images", total=total)
        yield lambda done, every: bar.update(task, completed=done)


def _show_lattices(terminal: Terminal, found: Anchors, told: Mapping[str, Any]) -> None:
    from onestage.boxes.tiling import size_name, sizes_name, verdict
    from onestage.cli.groups import how_many

    counts = dict(told["parameters"])
    whole = counts.pop("all")
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    levels = how_many(len({one.level for one in found.tilings}), "level")
    classes = how_many(told["classes"], "class").replace("classs", "classes")
    terminal.facts([
        ("model", _title(told)),
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


def _show_answers(terminal: Terminal, dataset: Dataset, found: Anchors, told: Mapping[str, Any]) -> None:
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


def _pictures(found: Anchors, dataset: Dataset | None, photos: Sequence[Path], several: bool) -> list[Shown]:
    """The first image of the set, or the first MOST of those that were asked for; of bare images the first."""
    if dataset is None:
        return [found.shown(photos[0], photos[0].name)] if photos else []
    images = dataset.images[: MOST if several else 1]
    return [found.shown(image.path, str(image.id), dataset.annotations[image.id]) for image in images]


def _title(told: Mapping[str, Any]) -> str:
    width, height = told["size"]
    return f"{told['model']} at {width}x{height}" + "".join(f", {k} {v}" for k, v in told["options"].items())


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
