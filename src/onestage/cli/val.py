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
    from onestage.data.detections import Found
    from onestage.evaluation import Evaluation
    from onestage.records import Detections, ImageId

EXAMPLES = (
    ("val ssd-lite0-trees-001", "a run's best weights, on the set it was judged on"),
    ("val ssd-lite0-trees-001 data=other/ split=test", "the same weights on other data"),
    ("val best.safetensors data=photos/ protocol=voc07,coco", "a weights file of ours"),
    ("val theirs.pth model=ssd300 classes=[cat,dog] data=photos/", "weights of another program, which name nothing"),
    (
        "val detections.json data=instances_val.json",
        "a COCO results list of any detector; needs neither torch nor images",
    ),
    ("val results/ data=VOCdevkit/VOC2007 split=test", "a folder of VOC's class files, as darknet valid writes them"),
    ("val labels/ data=data.yaml protocol=coco", "YOLO txt with confidence, one file per image"),
    ("val detections/ data=VisDrone2019-DET-val", "by the data's own protocol first"),
    ("val found.csv data=photos/ allow_loss=true", "a table; rows that cannot be judged are left out and listed"),
)
KEYS = (
    ("data", "the run's own", "a dataset folder or file, or the name of a sample"),
    ("split", "val", "train, val, test, a set's own name, or all; a COCO file of one set is taken whole"),
    ("protocol", "the run's, or all that fit", "voc07, voc10, voc07+1, voc10+1, coco, …; several with commas"),
    ("format", "by content", "detection files: coco, comp4, yolo, darknet, cartucho, csv, visdrone, …"),
    ("score", "0.01", "score floor: detections below it are not judged (a file: none is left out)"),
    ("iou", "0.5", "IoU of non-maximum suppression within a class; not for detection files"),
    ("at", "best mean F1", "score of the operating point, at which precision, recall and F1 are given"),
    ("categories", "automatic", "class numbers: coco (ids of the truth's file), labels (from 1), indices (from 0)"),
    ("model", "the file's own", "model the weights belong to, where they do not say so"),
    ("classes", "the file's own", "class names in order, where the weights do not say them"),
    ("weights", "best", "of a run: best or last"),
    ("batch", "16", "images at once"),
    ("fit", "the run's, or squash", "squash or letterbox"),
    ("precision", "the run's, or fp32", "fp32 or bf16"),
    ("device", "automatic", "cpu, cuda, mps"),
    ("seed", "0", "of the split, where only one set is given"),
    ("allow_loss", "false", "go on when more than 5 % of the data, or any row of a detection file, cannot be used"),
)  # fmt: skip
CHOICES = {
    "fit": ("squash", "letterbox"), "precision": ("fp32", "bf16"), "weights": ("best", "last"),
    "categories": ("coco", "labels", "indices"), "allow_loss": (True, False),
}  # fmt: skip
FOR_FILES = ("data", "split", "protocol", "format", "score", "at", "categories", "classes", "seed", "allow_loss")
ONLY_FOR_FILES = ("format", "categories")
WEIGHTS = (".safetensors", ".pth", ".pt", ".weights", ".ckpt")

Words = Annotated[
    list[str] | None, typer.Argument(metavar="RUN|WEIGHTS|DETECTIONS [data=…] [key=value …]", show_default=False)
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write metrics and curves here, as JSON.")]


@dataclass(frozen=True)
class Judged:
    """What was judged on what."""

    what: str
    data: str
    dataset: Dataset
    detections: Mapping[ImageId, Detections]
    evaluation: Evaluation
    found: Found | None = None


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
    split = judged.dataset.split
    said = judged.evaluation.as_dict() | _show_reading(terminal, judged)
    terminal.say()
    show_scores(terminal, said)
    if out is not None:
        write_bytes(out, json_text(said).encode())
        terminal.say(f"metrics and curves: {out}")
    kept = {key: value for key, value in said.items() if key != "curves"}
    terminal.result({"judged": judged.what, "data": judged.data, "split": split, **kept})


def _show_reading(terminal: Terminal, judged: Judged) -> dict[str, Any]:
    """Print what was judged, and of detection files what was read and what was wrong; the same for machines."""
    from onestage.cli.findings import counted, show_findings

    found, truth = judged.found, judged.dataset.findings
    on = f"{judged.data}, {judged.dataset.split}: {len(judged.dataset)} images"
    read = [] if found is None else [("read", found.described)]
    terminal.facts([("judged", judged.what), *read, ("on", on)])
    if found is None:
        return {}
    if truth:
        terminal.say(f"truth: {counted(truth)}; `onestage data show` lists them", style="dim")
    if found.findings:
        terminal.say(f"detections: {counted(found.findings)}")
        show_findings(terminal, found.findings, most=20)
    return found.as_dict()


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
        elif key in ("data", "split", "model", "device", "format") and not isinstance(value, str):
            problems.append(f"{key}: expected text, got {value!r}")
    if problems:
        raise UsageError("val: values that cannot be used", problems=problems)


def _judge(terminal: Terminal, place: str, keys: dict[str, Any]) -> Judged:
    from onestage.experiments.run import Run

    path = Path(place)
    if _holds_detections(path, keys):
        return _judge_file(path, keys)
    _refuse_dead(keys, [key for key in keys if key in ONLY_FOR_FILES], "weights")
    if path.is_file() or path.suffix in WEIGHTS:
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
        evaluation, found = judge(detector, dataset, protocols, **options)
    return Judged(str(path), str(data), dataset, found, evaluation)


def _holds_detections(path: Path, keys: Mapping[str, Any]) -> bool:
    """Whether detection files are meant: any file or folder that is neither weights nor a run."""
    from onestage.data.detections import recognise
    from onestage.experiments.naming import run_names

    if path.is_dir():
        return not (path / "run.json").is_file() and str(path) not in run_names()
    if path.suffix.lower() in (".json", ".txt", ".csv", ".tsv") or ("format" in keys and not path.exists()):
        return True
    return path.is_file() and path.suffix.lower() not in WEIGHTS and ("format" in keys or bool(recognise(path)))


def _judge_file(path: Path, keys: Mapping[str, Any]) -> Judged:
    """Detections against the truth, without torch and, for COCO data, without images."""
    from onestage.analysis.judging import judge_detections

    _refuse_dead(keys, [key for key in keys if key not in FOR_FILES], "a detection file")
    options = {key: keys[key] for key in ("split", "format", "categories", "score", "at", "seed", "allow_loss")
               if key in keys}  # fmt: skip
    judged = judge_detections(
        path, keys.get("data"), protocols=_names(keys.get("protocol")), classes=_names(keys.get("classes")), **options
    )
    return Judged(str(path), judged.data, judged.dataset, judged.detections, judged.evaluation, judged.found)


def _refuse_dead(keys: Mapping[str, Any], dead: Sequence[str], what: str) -> None:
    from onestage.errors import UsageError

    if dead:
        problems = [f"{key} has no effect on {what}" for key in dead]
        raise UsageError("val: keys without effect", problems=problems, hint="leave them away")


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
