"""`onestage val`: judge a run, weights, or anyone's detection file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset
    from onestage.evaluation import Evaluation
    from onestage.experiments.run import Run

EXAMPLES = (
    ("val ssd-lite0-trees-001", "a run's best weights, on the set it was judged on"),
    ("val ssd-lite0-trees-001 data=other/ split=test", "the same weights on other data"),
    ("val best.safetensors data=photos/ protocol=voc07,coco", "a weights file of ours"),
    ("val theirs.pth model=ssd300 classes=[cat,dog] data=photos/", "weights of another program, which name nothing"),
    (
        "val detections.json data=instances_val.json",
        "a COCO results list of any detector; needs neither torch nor images",
    ),
)
KEYS = (
    ("data", "the run's own", "a dataset folder or file, or the name of a sample"),
    ("split", "val", "train, val, test, a set's own name, or all; a COCO file of one set is taken whole"),
    ("protocol", "the run's, or all", "voc07, voc10, voc07+1, voc10+1, coco; several with commas"),
    ("score", "0.01", "score floor: detections below it are not judged (a file: none is left out)"),
    ("iou", "0.5", "IoU of non-maximum suppression within a class; not for detection files"),
    ("at", "best mean F1", "score of the operating point, at which precision, recall and F1 are given"),
    ("categories", "automatic", "detection files: coco (ids of the truth's file) or labels (1 is the first class)"),
    ("model", "the file's own", "model the weights belong to, where they do not say so"),
    ("classes", "the file's own", "class names in order, where the weights do not say them"),
    ("weights", "best", "of a run: best or last"),
    ("batch", "16", "images at once"),
    ("fit", "the run's, or squash", "squash or letterbox"),
    ("precision", "the run's, or fp32", "fp32 or bf16"),
    ("device", "automatic", "cpu, cuda, mps"),
    ("seed", "0", "of the split, where only one set is given"),
    ("allow_loss", "false", "go on when more than 5 % of the boxes or images cannot be used"),
)  # fmt: skip
CHOICES = {
    "fit": ("squash", "letterbox"), "precision": ("fp32", "bf16"), "weights": ("best", "last"),
    "categories": ("coco", "labels"), "allow_loss": (True, False),
}  # fmt: skip
FOR_FILES = ("data", "split", "protocol", "score", "at", "categories", "classes", "seed", "allow_loss")

Words = Annotated[
    list[str] | None, typer.Argument(metavar="RUN|WEIGHTS|PREDICTIONS.json [data=…] [key=value …]", show_default=False)
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write metrics and curves here, as JSON.")]


@dataclass(frozen=True)
class Judged:
    """What was judged on what."""

    what: str
    data: str
    dataset: Dataset
    evaluation: Evaluation


@verb(EXAMPLES, KEYS)
def val(words: Words = None, out: Out = None, as_json: Json = False) -> None:
    """Judge a run, weights, or anyone's detection file, with 95 % intervals."""
    from onestage.cli.scores import show_scores
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import at_most, known_only, split_words
    from onestage.errors import UsageError
    from onestage.experiments.storage import as_json as json_text
    from onestage.experiments.storage import write_bytes

    places, keys = split_words(words)
    known_only("val", keys, [key for key, _, _ in KEYS])
    at_most("val", places, 1, "run, weights file or detection file")
    if not places:
        raise UsageError(
            "val: what shall be judged? a run, a weights file or a detection file", hint="onestage val --help"
        )
    _check(keys)
    terminal = Terminal(as_json)
    judged = _judge(terminal, places[0], keys)
    metrics = judged.evaluation.as_dict()
    split = judged.dataset.split
    terminal.facts([("judged", judged.what), ("on", f"{judged.data}, {split}: {len(judged.dataset)} images")])
    terminal.say()
    show_scores(terminal, metrics)
    if out is not None:
        write_bytes(out, json_text(metrics).encode())
        terminal.say(f"metrics and curves: {out}")
    kept = {key: value for key, value in metrics.items() if key != "curves"}
    terminal.result({"judged": judged.what, "data": judged.data, "split": split, **kept})


def _check(keys: Mapping[str, Any]) -> None:
    """UsageError that names every value no key of its kind can have."""
    from onestage.errors import UsageError

    problems = []
    for key, value in keys.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if key in ("score", "iou", "at") and not (number and 0 <= value <= 1):
            problems.append(f"{key}: expected a number from 0 to 1, got {value!r}")
        elif key in ("batch", "seed") and not (isinstance(value, int) and number and value >= (key == "batch")):
            problems.append(f"{key}: expected a whole number, got {value!r}")
        elif key in CHOICES and value not in CHOICES[key]:
            problems.append(f"{key}: expected {' or '.join(map(str, CHOICES[key]))}, got {value!r}")
        elif key in ("data", "split", "model", "device") and not isinstance(value, str):
            problems.append(f"{key}: expected text, got {value!r}")
    if problems:
        raise UsageError("val: values that cannot be used", problems=problems)


def _judge(terminal: Terminal, place: str, keys: dict[str, Any]) -> Judged:
    from onestage.experiments.run import Run

    path = Path(place)
    if path.suffix.lower() == ".json" and not path.is_dir():
        return _judge_file(path, keys)
    if path.is_file() or path.suffix in (".safetensors", ".pth", ".pt"):
        return _judge_weights(terminal, path, keys, {})
    run = Run.open(place)
    which = keys.pop("weights", "best")
    recipe = run.recipe
    validation = recipe.get("validation") or {}
    own = {
        "data": recipe.get("data"), "classes": recipe.get("classes"), "seed": recipe.get("seed", 0),
        "allow_loss": recipe.get("allow_loss", False), "protocol": validation.get("protocols"),
        "score": validation.get("score"), "iou": validation.get("iou"), "fit": recipe.get("fit"),
        "precision": recipe.get("precision"),
    }  # fmt: skip
    return _judge_weights(terminal, run.weights_dir / f"{which}.safetensors", keys, own)


def _judge_weights(terminal: Terminal, path: Path, given: Mapping[str, Any], own: Mapping[str, Any]) -> Judged:
    from onestage.data.one_set import open_set
    from onestage.errors import ModelError

    if not path.is_file():
        raise ModelError(f"there are no weights at {path}", hint="the run may have been stopped before it was judged")
    known = {key: value for key, value in own.items() if value is not None}
    keys = {**known, **given}
    data = _needed(keys)
    protocols = _protocols(keys)
    with terminal.waiting("loading torch"):
        from onestage.models.weights import load_detector, read_card
        from onestage.training.judge import judge
    named = _names(given.get("classes"))
    detector, classes = load_detector(path, given.get("model"), named or ())
    keys.setdefault("fit", read_card(path).get("fit", "squash") if given.get("model") is None else "squash")
    options = {key: keys[key] for key in ("score", "iou", "fit", "precision", "batch", "device", "at") if key in keys}
    dataset = open_set(
        data, keys.get("split"), classes=classes, seed=keys.get("seed", 0), allow_loss=keys.get("allow_loss", False)
    )
    with terminal.waiting(f"judging {len(dataset)} images"):
        evaluation, _ = judge(detector, dataset, protocols, **options)
    return Judged(str(path), str(data), dataset, evaluation)


def _judge_file(path: Path, keys: Mapping[str, Any]) -> Judged:
    """Detections against the truth, without torch and, for COCO data, without images."""
    from onestage.data.detections import read_detections
    from onestage.data.one_set import open_set
    from onestage.errors import UsageError
    from onestage.evaluation import evaluate

    dead = [f"{key} has no effect on a detection file" for key in keys if key not in FOR_FILES]
    if dead:
        raise UsageError("val: keys without effect", problems=dead, hint="leave them away")
    run = _run_beside(path)
    data = _needed(keys) if run is None or "data" in keys else run.folder / "validation.json"
    dataset = open_set(
        data, keys.get("split"), classes=_names(keys.get("classes")), seed=keys.get("seed", 0),
        allow_loss=keys.get("allow_loss", False), images=False,
    )  # fmt: skip
    floor = keys.get("score")
    if floor is None and run is not None:
        floor = run.metrics.get("score_floor")
    detections = read_detections(path, dataset, _categories(keys, data, dataset, run), floor or 0.0)
    truths = {image.id: dataset.annotations[image.id] for image in dataset.images}
    protocols = _protocols(keys)
    evaluation = evaluate(truths, detections, dataset.classes, protocols, score_floor=floor, score=keys.get("at"))
    return Judged(str(path), str(data), dataset, evaluation)


def _categories(keys: Mapping[str, Any], data: Any, dataset: Dataset, run: Run | None) -> dict[int, int]:
    """category_id → label: as the truth's COCO file numbers its categories, or by the order of classes."""
    from onestage.data.detections import coco_labels, own_labels
    from onestage.data.samples import SAMPLES
    from onestage.errors import UsageError

    asked = keys.get("categories")
    ids = (
        None
        if asked == "labels"
        else coco_labels(Path(dataset.root if str(data) in SAMPLES else data), dataset.classes)
    )
    if asked == "coco" and ids is None:
        raise UsageError("categories=coco: the data is no COCO JSON", hint="categories=labels")
    if run is not None and asked is None:
        theirs = (run.info.get("data") or {}).get("classes")
        return own_labels(theirs or dataset.classes, dataset.classes)
    return own_labels(dataset.classes, dataset.classes) if ids is None else ids


def _run_beside(path: Path) -> Run | None:
    """The run whose predictions.json this is; None for any other file."""
    from onestage.experiments.run import Run

    return Run(path.parent) if (path.parent / "run.json").is_file() else None


def _needed(keys: Mapping[str, Any]) -> Any:
    from onestage.errors import UsageError

    if not keys.get("data"):
        raise UsageError("val: data=… is missing", hint="a dataset folder or file, or the name of a sample (data ls)")
    return keys["data"]


def _protocols(keys: Mapping[str, Any]) -> tuple[str, ...]:
    return _names(keys.get("protocol")) or ("voc07", "voc10", "coco")


def _names(value: Any) -> tuple[str, ...] | None:
    """A list of words, written [a,b] or a,b."""
    if value is None:
        return None
    return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else tuple(
        word.strip() for word in str(value).split(",") if word.strip()
    )  # fmt: skip
