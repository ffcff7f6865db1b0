"""`onestage data anchors`: a model's priors as a lattice, and how they answer for the truths of a set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset
    from onestage.training.anchors import Anchors, Shown

EXAMPLES = (
    ("data anchors model=faceboxes options.layout=symmetric", "where a model's priors stand, and whether any coincide"),
    ("data anchors photos/ model=ssd300", "how they would answer for the truths of a set, before any training"),
    ("data anchors photos/ model=faceboxes size=640 image=a.jpg --draw a.png", "one image of it, drawn"),
    ("data anchors photos/ model=yolov3 --cluster kmedians --draw a.png", "anchors made for a set, beside the model's"),
)
KEYS = (
    ("model", "ssd-lite0", "anchors: a model by name; it is built at random, nothing is fetched"),
    ("size", "the model's", "anchors: input size in pixels, one number or [width, height]"),
    ("fit", "the model's", "anchors: how images come to the network: squash, letterbox, or native, their own pixels"),
    ("scale", "1", "anchors: of fit=native: images at so many times their own pixels"),
    ("options.NAME", "the model's", "anchors: an option of the model, such as options.layout=symmetric"),
    ("split", "train", "anchors: train, val, test, a set's own name, or all"),
    ("image", "all of the set", "anchors: only these images, by id, file name or path; several as [a,b]"),
    (
        "cluster",
        "none",
        "anchors: make them from the set, by kmeans or kmedians under IoU, and compare (YOLO networks)",
    ),
    ("count", "the model's", "anchors: of cluster: how many anchors to make"),
)
FITS = ("squash", "letterbox", "native")
LARGEST = 16_384  # pixels of a side of the input
MOST = 6  # images of one picture
MOST_ANCHORS = 100


def anchors_command(terminal: Terminal, places: Sequence[str], keys: Mapping[str, Any], draw: Path | None) -> None:
    """Print the lattices, the answers where there are annotations, and write the picture where `draw` names a file."""
    from onestage.cli.anchor_tables import show_answers, show_lattices, title_of
    from onestage.cli.words import listed
    from onestage.models import defaults, is_cfg, refuse_unknown

    options = _checked(keys)
    if draw is not None:
        _refuse_place(draw)
    model = str(keys.get("model", "yolov3" if "cluster" in keys else "ssd-lite0"))
    wanted = listed(keys.get("image")) or ()
    if not is_cfg(model):
        refuse_unknown(model)  # before torch is loaded
    data, photos = _sorted_out(places)
    if wanted and data is None:
        raise UsageError("image= names images of a data set, and none is given", hint="onestage data anchors DATA …")
    if "cluster" in keys and data is None:
        raise UsageError(
            "cluster= makes anchors from a data set, and none is given", hint="onestage data anchors DATA …"
        )
    with terminal.waiting("loading torch"):
        from onestage.training.anchors import anchors, chosen_set
    dataset = None
    if data is not None:
        dataset = chosen_set(
            data, str(keys.get("split", "train")), wanted, seed=keys.get("seed", 0),
            allow_loss=keys.get("allow_loss", False),
        )  # fmt: skip
    if dataset is not None and "cluster" in keys:
        from onestage.cli.anchor_clusters import clusters_command

        clusters_command(terminal, dataset, model, {**keys, "size": _sides(keys.get("size"))}, options, draw)
        return
    classes = None if dataset is None else len(dataset.classes)
    fit, scale = keys.get("fit") or defaults(model).get("fit", "squash"), float(keys.get("scale", 1))
    size = _first_size(dataset, photos, scale) if fit == "native" else _sides(keys.get("size"))
    found = anchors(model, classes, size, fit, scale, **options)
    told = found.as_dict() | {"options": options}
    show_lattices(terminal, found, told)
    if dataset is not None:
        with _bar(terminal, len(dataset)) as progress:
            answers = found.answers(dataset, progress)
        told |= {"data": data, "split": dataset.split, "images": [str(image.id) for image in dataset.images][:MOST]}
        told["answers"] = answers.as_dict() | {"by_group": found.answer_rows(answers)}
        terminal.say()
        show_answers(terminal, dataset, told["answers"])
    elif photos:
        terminal.say()
        terminal.say(f"{photos[0]} has no annotations here: only the lattice" + " is drawn" * (draw is not None))
    if draw is not None:
        from onestage.report.anchor_sheet import write_anchor_sheet

        shown = _pictures(found, dataset, photos, several=bool(wanted))
        with terminal.waiting(f"writing {draw}"):
            write_anchor_sheet(draw, found, shown, title_of(told))
        terminal.say()
        terminal.say(f"picture: {draw}")
    terminal.result({**told, "picture": None if draw is None else str(draw)})


def _checked(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The model's options among the keys; UsageError that names every key and value that cannot be used."""
    from onestage.cli.words import is_number, known_only
    from onestage.models import TOLD

    known = [key for key, _, _ in KEYS if key != "options.NAME"] + ["seed", "allow_loss"]
    plain = {key: value for key, value in keys.items() if key != "options" and not key.startswith("options.")}
    known_only("data anchors", plain, [*known, "options"])
    problems = []
    for key, value in plain.items():
        if key == "fit" and value not in FITS:
            problems.append(f"fit: expected one of {', '.join(FITS)}, got {value!r}")
        elif key == "seed" and not (isinstance(value, int) and is_number(value, 0, 2**63)):
            problems.append(f"seed: expected a whole number, got {value!r}")
        elif key == "allow_loss" and not isinstance(value, bool):
            problems.append(f"allow_loss: expected true or false, got {value!r}")
        elif key in ("model", "split") and not isinstance(value, str):
            problems.append(f"{key}: expected text, got {value!r}")
        elif key == "size" and value is not None and _sides(value) is None:
            problems.append(f"size: expected a number or [width, height], 1 to {LARGEST} pixels, got {value!r}")
        elif key == "scale" and not is_number(value, 0.01, 16):
            problems.append(f"scale: expected a number from 0.01 to 16, got {value!r}")
    native = plain.get("fit") == "native"
    problems += _clusters(plain)
    if "scale" in plain and not native:
        problems.append("scale: has no effect without fit=native")
    if plain.get("size") is not None and native:
        problems.append("size: has no effect on fit=native, where every image has its own")
    options = {key.removeprefix("options."): value for key, value in keys.items() if key.startswith("options.")}
    if isinstance(listed := keys.get("options") or {}, Mapping):
        options = {**listed, **options}
    else:
        problems.append(f"options: expected NAME: value, got {listed!r}")
    keys_beside = (*TOLD, "model", "fit", "scale")
    problems += [f"options.{name}: no option of a model" for name in options if name in keys_beside]
    if problems:
        raise UsageError("data anchors: values that cannot be used", problems=problems)
    return options


def _clusters(plain: Mapping[str, Any]) -> list[str]:
    """What is wrong with the keys of clusters."""
    from onestage.boxes.clusters import HOW

    problems = []
    how, count = plain.get("cluster"), plain.get("count")
    if "cluster" in plain and how not in HOW:
        problems.append(f"cluster: expected {' or '.join(HOW)}, got {how!r}{did_you_mean(str(how), HOW)}")
    if "count" in plain and (type(count) is not int or not 1 <= count <= MOST_ANCHORS):
        problems.append(f"count: expected a whole number from 1 to {MOST_ANCHORS}, got {count!r}")
    if "count" in plain and "cluster" not in plain:
        problems.append("count: has no effect without cluster=kmeans or cluster=kmedians")
    if "cluster" in plain and plain.get("fit") == "native":
        problems.append("fit: networks whose anchors are made train at one size, squash or letterbox")
    return problems


def _sides(value: Any) -> tuple[int, int] | None:
    """Width and height of [width, height], of one number for both, of the text 640x480; None of anything else."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d+)[x,](\d+)", value)):
        value = [int(match[1]), int(match[2])]
    sides = [value, value] if isinstance(value, int) else value
    whole = isinstance(sides, list) and len(sides) == 2 and all(type(side) is int for side in sides)
    return (sides[0], sides[1]) if whole and all(1 <= side <= LARGEST for side in sides) else None


def _first_size(dataset: Dataset | None, photos: Sequence[Path], scale: float) -> tuple[int, int]:
    """The input of the first image at its own pixels; UsageError where there is no image."""
    from onestage.data.images import decode, native_size

    if dataset is not None:
        return native_size((dataset.images[0].width, dataset.images[0].height), scale)
    if not photos:
        raise UsageError("fit=native: every image has an input of its own size, and no image is named")
    height, width = decode(photos[0]).shape[:2]
    return native_size((width, height), scale)


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
    try:
        return None, sources(places)
    except DataError as error:
        raise DataError("no data set and no images there", problems=error.problems, hint=error.hint) from error


@contextmanager
def _bar(terminal: Terminal, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar over the images, on a terminal."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal.console, disable=not terminal.live, transient=True) as bar:
        task = bar.add_task("images", total=total)
        yield lambda done, every: bar.update(task, completed=done)


def _pictures(found: Anchors, dataset: Dataset | None, photos: Sequence[Path], several: bool) -> list[Shown]:
    """The first image of the set, or the first MOST of those that were asked for; of bare images the first."""
    if dataset is None:
        return [found.shown(photos[0], photos[0].name)] if photos else []
    images = dataset.images[: MOST if several else 1]
    return [found.shown(image.path, str(image.id), dataset.annotations[image.id]) for image in images]
