"""`onestage data tile`: a set of large photographs cut into tiles, and what became of its objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.errors import UsageError

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset
    from onestage.data.tiling import Counts, Tiling

EXAMPLES = (
    ("data tile VisDrone2019-DET-train tiles/", "cut large photographs into tiles; cut objects are ignored"),
    ("data tile photos/ tiles/ size=416 overlap=0.3 empty=false", "smaller tiles, none without an object"),
)
KEYS = (
    ("size", "608", "tile: side of a tile in pixels"),
    ("overlap", "0.2", "tile: share of a side that neighbours have in common at least"),
    ("cut", "ignore", "tile: what becomes of an object that a border cuts: ignore, clip or drop"),
    ("visible", "0.9", "tile: an object of which so much of its area shows stays a truth; not with cut=clip"),
    ("empty", "true", "tile: write tiles without an object, too"),
    ("format", "automatic", "tile: coco, visdrone, yolo or voc; automatic: visdrone stays so, all else is coco"),
    ("split", "automatic", "tile: one set by name, or all as one; automatic: each, and a split where there is but one"),
)
_KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "size": (int, "a whole number"), "overlap": ((int, float), "a number"), "cut": (str, "a word"),
    "visible": ((int, float), "a number"), "empty": (bool, "true or false"), "format": (str, "a word"),
    "split": (str, "a word"), "seed": (int, "a whole number"), "allow_loss": ((bool, float), "true or false"),
}  # fmt: skip


def tile_command(terminal: Terminal, places: Sequence[str], keys: Mapping[str, Any]) -> None:
    """Cut up the set and write it; print the counts."""
    from onestage.data.tiling import FORMATS, tile_dataset

    if len(places) != 2:
        raise UsageError("data tile: a data set and a new folder are needed", hint="onestage data tile photos/ tiles/")
    tiling = _tiling(keys)
    form, out = keys.get("format"), Path(places[1]).expanduser()
    if form is not None and form not in FORMATS:
        raise UsageError(f"data tile: format: expected one of {', '.join(FORMATS)}, got {form!r}")
    sets, made = _sets(terminal, places[0], keys)
    form = form or ("visdrone" if all(one.format == "visdrone" for one in sets.values()) else "coco")
    try:
        with terminal.counting("photographs", sum(map(len, sets.values()))) as step:
            counts, lost = tile_dataset(sets, out, tiling, form, progress=step)
    except ValueError as error:
        raise UsageError(
            f"data tile: {error}: what is cut would be taught as background", hint="format=coco, or cut=clip"
        ) from error
    _show(terminal, counts)
    if lost:
        terminal.say(f"{form} cannot hold {len(lost)} flags: {lost[0].what}")
    terminal.say(f"{out} ({form}); train on it with data={out}")
    terminal.result({
        "folder": str(out), "format": form, "tiling": vars(tiling), "split_made": made,
        "sets": {name: count.as_dict() for name, count in counts.items()}, "flags_lost": len(lost),
    })  # fmt: skip


def _tiling(keys: Mapping[str, Any]) -> Tiling:
    """The tiling that the keys ask for; UsageError with every problem."""
    from onestage.data.tiling import Tiling

    problems = []
    for key, value in keys.items():
        kind, words = _KINDS.get(key, (object, ""))
        if not isinstance(value, kind) or (isinstance(value, bool) and key in ("size", "overlap", "visible", "seed")):
            problems.append(f"{key}: expected {words}, got {value!r}")
    if "visible" in keys and keys.get("cut") == "clip":
        problems.append("visible: has no effect with cut=clip, which keeps every part that shows")
    if not problems:
        try:
            return Tiling(**{key: keys[key] for key in ("size", "overlap", "cut", "visible", "empty") if key in keys})
        except ValueError as error:
            problems = str(error).split("; ")
    raise UsageError("data tile: values that cannot be used", problems=problems)


def _sets(terminal: Terminal, path: str, keys: Mapping[str, Any]) -> tuple[dict[str, Dataset], str | None]:
    """The sets to be cut up, by name, and how a split was made, where one was."""
    from onestage.cli.words import listed
    from onestage.data import samples
    from onestage.data.one_set import open_set
    from onestage.data.opening import open_dataset
    from onestage.data.split import UndividedError
    from onestage.errors import DataError

    place: str | Path = samples.get(path) if path in samples.SAMPLES else path
    classes, loss = listed(keys.get("classes")), keys.get("allow_loss", False)
    split = keys.get("split")
    if split is not None:
        one = open_set(place, split, classes=classes, allow_loss=loss)
        terminal.say(f"{one.split}: {len(one)} image{'s' * (len(one) != 1)} with {one.boxes} boxes")
        return {one.split: one}, None
    try:
        opened = open_dataset(place, classes=classes, seed=keys.get("seed", 0), allow_loss=loss)
    except UndividedError as error:
        raise DataError(error.message, problems=error.problems, hint="split=all cuts the set as a whole") from error
    terminal.say(opened.described)
    sets = {"train": opened.train, "val": opened.val, "test": opened.test}
    return {name: one for name, one in sets.items() if one is not None}, opened.split_made


def _show(terminal: Terminal, counts: Mapping[str, Counts]) -> None:
    terminal.say()
    columns = ("set", "photographs", "tiles", "empty", "objects", "truths", "clipped", "ignored", "dropped", "in none")
    terminal.table(columns, [
        (name, *(f"{value:,}" for value in (
            count.photographs, count.tiles, count.empty, count.objects, count.truths, count.clipped, count.ignored,
            count.dropped, count.never,
        )))
        for name, count in counts.items()
    ])  # fmt: skip
    terminal.say()
    for name, count in counts.items():
        if count.never:
            terminal.say(
                f"{name}: {count.never} of {count.objects} objects are a truth in no tile (the longest has "
                f"{count.widest:.0f} px); a larger size or overlap, or a smaller visible, keeps them", style="yellow",
            )  # fmt: skip
        if count.repeated:
            terminal.say(f"{name}: {count.repeated} objects are a truth in several tiles")
