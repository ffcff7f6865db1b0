"""`onestage weights`: what a weights file holds, tensor by tensor, and other forms of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal

EXAMPLES = (
    ("weights show yolov3-tiny.weights", "a file of darknet: its header, and every tensor"),
    ("weights show yolov3-tiny-coco classes=6", "what would become of each tensor in a network for 6 classes"),
    ("weights show darknet53.conv.74 model=my.cfg", "a cut-off file beside the cfg of a network"),
    ("weights show theirs.pth model=yolov3", "a state of a PyTorch port"),
    ("weights convert yolov3-visdrone-001 found.weights", "a run for darknet: found.weights, found.cfg, found.names"),
    ("weights convert yolov3.weights yolov3.safetensors model=yolov3", "darknet's file as one of ours"),
    ("weights convert yolov3-tiny.weights yolov3-tiny.conv.15 model=yolov3-tiny", "its first 15 layers"),
)
KEYS = (
    ("model", "as the file says", "a model by name, or a cfg of darknet's; show: told by the length of a .weights"),
    ("classes", "the file's own", "show: a number; convert: the names in order, [a,b,…]"),
    ("layers", "all", "convert: only the first so many layers, to a .weights file"),
)
VERBS = ("show", "convert")
Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[show FILE | convert FILE|RUN OUT] [model=…]", show_default=False),
]


@verb(EXAMPLES, KEYS)
def weights(words: Words = None, as_json: Json = False) -> None:
    """Show what becomes of every tensor of a weights file, or write it in another form."""
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import known_only, split_words
    from onestage.errors import UsageError, did_you_mean

    places, keys = split_words(words)
    known = [key for key, _, _ in KEYS if key != "layers" or places[:1] == ["convert"]]
    known_only("weights", keys, known)
    terminal = Terminal(as_json)
    match places:
        case ["show", name]:
            _show(terminal, name, keys)
        case ["convert", name, out]:
            _convert(terminal, name, Path(out).expanduser(), keys)
        case ["show", *_]:
            raise UsageError("weights show: one file is expected", hint="onestage weights show FILE model=NAME")
        case ["convert", *_]:
            raise UsageError(
                "weights convert: expected a file or run and what to write",
                hint="onestage weights convert RUN found.weights",
            )
        case [word, *_]:
            raise UsageError(
                f"weights does not know {word!r}{did_you_mean(word, VERBS)}",
                hint="weights show FILE, or weights convert FILE OUT",
            )
        case _:
            raise UsageError("weights: show or convert?", hint="onestage weights --help")


def _show(terminal: Terminal, name: str, keys: Mapping[str, Any]) -> None:
    count, model = _count(keys.get("classes")), _model(keys)
    with terminal.waiting("loading torch"):
        from onestage.models.inspection import inspect
    path, known = _file(name, model)
    with terminal.waiting(f"reading {path.name}"):
        found = inspect(path, model or known, count)
    detector, report, rows = found.detector, found.report, found.rows()
    held = "" if found.held is None else f", {found.held} classes in the file"
    facts = [("file", f"{path}, {path.stat().st_size:,} bytes")]
    if found.header is not None:
        facts.append(("header", f"version {found.header.version}, {found.header.seen:,} images seen"))
    width, height = detector.size
    facts.append(("model", f"{detector.name}, {detector.classes} classes, input {width}x{height}{held}"))
    terminal.facts([*facts, *(("note", note) for note in report.notes), ("in all", str(report))])
    terminal.say()
    columns = ("layer", "tensor", "becomes", "why", "shape")
    terminal.table(columns, [_cells(row) for row in rows], left=4)
    terminal.result(found.as_dict())


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    shape = "" if row["shape"] is None else " x ".join(map(str, row["shape"])) or "1"
    return row["layer"], row["tensor"], row["becomes"], row["why"], shape


def _convert(terminal: Terminal, name: str, out: Path, keys: Mapping[str, Any]) -> None:
    from onestage.cli.words import listed
    from onestage.experiments.storage import make_room, write_bytes

    layers, model, names = _layers(keys.get("layers")), _model(keys), listed(keys.get("classes")) or ()
    make_room(out, "OUT")
    with terminal.waiting("loading torch"):
        from onestage.models.conversion import converted, refuse_there
    refuse_there(out, layers)
    path, known = _file(name, model, runs=True)
    with terminal.waiting(f"converting {path.name}"):
        made = converted(path, out, model or known, names, layers, _seen(path))
        for file, (data, _) in made.items():
            write_bytes(file, data)
    for file, (_, what) in made.items():
        terminal.say(f"{file}: {what}")
    terminal.result({"from": str(path), "written": {str(file): what for file, (_, what) in made.items()}})


def _file(name: str, model: str | None, runs: bool = False) -> tuple[Path, str | None]:
    """The file that is meant: published by name, of a run, or there; and the model it is known to be of."""
    from onestage.experiments.run_weights import weights_of
    from onestage.models.published import PUBLISHED, published

    if (known := published(name)) is not None:
        return known.file_for(model), known.model
    path = Path(name).expanduser()
    if runs or not path.is_file():
        path, _ = weights_of(name, PUBLISHED)
    return path, None


def _seen(path: Path) -> int:
    """The images that a run had seen when its weights were saved; 0 for files of no run."""
    from onestage.experiments.run_weights import weights_of
    from onestage.models.weights_files import card_of

    _, run = weights_of(path)
    step = (card_of(path) or {}).get("step")
    return int(step) * int(run.recipe.get("batch") or 0) if run is not None and step else 0


def _model(keys: Mapping[str, Any]) -> str | None:
    from onestage.errors import UsageError

    model = keys.get("model")
    if model is not None and not isinstance(model, str):
        raise UsageError(f"model: expected a name or a .cfg file, got {model!r}")
    return model


def _count(value: Any) -> int | None:
    from onestage.cli.words import is_number, listed
    from onestage.errors import UsageError

    if value is None or (isinstance(value, int) and is_number(value, 1, 10_000)):
        return value
    if isinstance(value, str | Sequence) and (names := listed(value)):
        return len(names)
    raise UsageError(f"classes: expected a number from 1 to 10000, or names [a,b,…], got {value!r}")


def _layers(value: Any) -> int | None:
    from onestage.cli.words import is_number
    from onestage.errors import UsageError

    if value is None or (isinstance(value, int) and is_number(value, 1, 100_000)):
        return value
    raise UsageError(f"layers: expected a number of layers from 1 on, got {value!r}")
