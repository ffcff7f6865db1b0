"""`onestage val`: judge a run, weights, or anyone's detection file."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.cli.judging import Judged
    from onestage.cli.terminal import Terminal

EXAMPLES = (
    ("val ssd-lite0-trees-001", "a run's best weights, on the set it was judged on"),
    ("val ssd-lite0-trees-001 data=other/ split=test", "the same weights on other data"),
    ("val best.safetensors data=photos/ protocol=voc07,coco", "a weights file of ours"),
    (
        "val faceboxes-wider data=WIDER/ protocol=widerface write=found format=widerface",
        "published weights, their detections as files for the official tool",
    ),
    ("val theirs.pth model=ssd300 classes=[cat,dog] data=photos/", "weights of another program, which name nothing"),
    (
        "val detections.json data=instances_val.json",
        "a COCO results list of any detector; needs neither torch nor images",
    ),
    ("val results/ data=VOCdevkit/VOC2007 split=test", "a folder of VOC's class files, as darknet valid writes them"),
    ("val labels/ data=data.yaml protocol=coco", "YOLO txt with confidence, one file per image"),
    ("val detections/ data=VisDrone2019-DET-val", "by the data's own protocol first"),
    ("val detections.json data=instances_val.json --explain-protocol", "the same by every protocol, gaps explained"),
    ("val detections.json data=instances_val.json --details --page judged.html", "calibration, confusions, a page"),
    ("val found.csv data=photos/ allow_loss=true", "a table; rows that cannot be judged are left out and listed"),
)
KEYS = (
    ("data", "the run's own", "a dataset folder or file, or the name of a sample"),
    ("split", "val", "train, val, test, a set's own name, or all; a COCO file of one set is taken whole"),
    ("protocol", "the run's, or all that fit", "coco, voc07, voc07+1, voc10@0.75, darknet, …; several with commas"),
    ("format", "by content", "detection files: coco, comp4, yolo, darknet, cartucho, csv, visdrone, widerface, fddb"),
    ("write", "nowhere", "a new folder for the detections, in format=widerface, fddb, yolo or comp4"),
    ("plus_one", "false", "in these: widths and heights one larger, as FaceBoxes' own programs write them"),
    ("score", "0.01", "score floor: detections below it are not judged (a file: none is left out)"),
    ("iou", "the run's, the model's", "IoU of non-maximum suppression within a class; not for detection files"),
    ("candidates", "the run's, the model's", "boxes of each class in an image that suppression looks at"),
    ("most", "the run's, the model's", "detections of an image that are kept"),
    ("at", "best mean F1", "score of the operating point, at which precision, recall and F1 are given"),
    ("categories", "automatic", "class numbers: coco (ids of the truth's file), labels (from 1), indices (from 0)"),
    ("model", "the file's own", "model the weights belong to, where they do not say so"),
    ("classes", "the file's own", "class names in order, where the weights do not say them"),
    ("weights", "best", "of a run: best or last"),
    ("batch", "16", "images at once"),
    ("fit", "the run's, or squash", "how images come to the network: squash, letterbox, or native, their own pixels"),
    ("scale", "the run's, or 1", "of fit=native: images at so many times their own pixels"),
    ("precision", "the run's, or fp32", "fp32 or bf16"),
    ("device", "automatic", "cpu, cuda, mps"),
    ("seed", "0", "of the split, where only one set is given"),
    ("allow_loss", "false", "go on when more than 5 % of the data, or any row of a detection file, cannot be used"),
)  # fmt: skip
CHOICES = {
    "fit": ("squash", "letterbox", "native"), "precision": ("fp32", "bf16"), "weights": ("best", "last"),
    "categories": ("coco", "labels", "indices"), "allow_loss": (True, False), "plus_one": (True, False),
}  # fmt: skip

WHOLE = ("batch", "seed", "candidates", "most")

Words = Annotated[
    list[str] | None, typer.Argument(metavar="RUN|WEIGHTS|DETECTIONS [data=…] [key=value …]", show_default=False)
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write metrics and curves here, as JSON.")]
Page = Annotated[Path | None, typer.Option("--page", metavar="FILE.html", help="Write a page with figures here.")]
Explain = Annotated[
    bool, typer.Option("--explain-protocol", help="Judge by every protocol that fits, and say where gaps come from.")
]
Details = Annotated[
    bool, typer.Option("--details", help="Print calibration, confusions and each class's best score, too.")
]


@verb(EXAMPLES, KEYS)
def val(
    words: Words = None, out: Out = None, page: Page = None, explain_protocol: Explain = False,
    details: Details = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Judge a run, weights, or anyone's detection file, with 95 % intervals."""
    from onestage.cli.detail_tables import show_details
    from onestage.cli.judging import judge
    from onestage.cli.scores import show_scores
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import at_most, known_only, split_words
    from onestage.errors import UsageError
    from onestage.experiments.storage import as_json as json_text
    from onestage.experiments.storage import make_room, write_bytes

    places, keys = split_words(words)
    known_only("val", keys, [key for key, _, _ in KEYS])
    at_most("val", places, 1, "run, weights file or detection file")
    if not places:
        raise UsageError(
            "val: what shall be judged? a run, a weights file or a detection file", hint="onestage val --help"
        )
    _check(keys)
    for key, file in (("--out", out), ("--page", page)):
        if file is not None:
            make_room(file, key)
    terminal = Terminal(as_json)
    asked = "protocol" in keys
    judged = judge(terminal, places[0], keys)
    split = judged.dataset.split
    read = _show_reading(terminal, judged)
    with terminal.waiting("calibration, confusions, curves by score"):
        said = judged.evaluation.as_dict() | read
    terminal.say()
    show_scores(terminal, said)
    if judged.written:
        terminal.say(judged.written)
    if details:
        show_details(terminal, said)
    if explain_protocol:
        said["explanation"] = _explain(terminal, judged, asked)
    if out is not None:
        with terminal.waiting(f"writing {out}"):
            write_bytes(out, json_text(said).encode())
        terminal.say(f"metrics and curves: {out}")
    if page is not None:
        _write_page(terminal, page, judged, said)
    kept = {key: value for key, value in said.items() if key not in ("curves", "confidence")}
    terminal.result({"judged": judged.what, "data": judged.data, "split": split, **kept})


def _explain(terminal: Terminal, judged: Judged, asked: bool) -> dict[str, Any]:
    """Print where the gaps between the protocols come from, seen from the first one judged by; the same as JSON.

    Several protocols that were `asked` for are explained alone, else all.
    """
    from onestage.cli.explained import show_explanation
    from onestage.evaluation import PROTOCOLS
    from onestage.evaluation.explanation import explain

    dataset, evaluation = judged.dataset, judged.evaluation
    first = evaluation.protocols[0]
    others = evaluation.protocols if asked and len(evaluation.protocols) > 1 else PROTOCOLS
    with terminal.waiting("judging by every protocol"):
        told = explain(
            dataset.truths, judged.detections, dataset.classes, dataset.sizes,
            (first, *(name for name in others if name != first)), evaluation.score_floor,
        )  # fmt: skip
    terminal.say()
    show_explanation(terminal, told)
    return told.as_dict()


def _write_page(terminal: Terminal, page: Path, judged: Judged, said: Mapping[str, Any]) -> None:
    from onestage.report.judged_page import write_judged_page

    findings = [*judged.dataset.findings, *(judged.found.findings if judged.found else ())]
    with terminal.waiting("writing the page"):
        write_judged_page(
            page, said, judged.dataset.classes, judged.what, f"{judged.data}, {judged.dataset.split}",
            findings=[finding.as_dict() for finding in findings],
        )  # fmt: skip
    terminal.say(f"page: {page}")


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
    from onestage.cli.words import is_number
    from onestage.errors import UsageError

    problems = []
    for key, value in keys.items():
        if key == "protocol" and not str(value or "").strip(" ,[]"):
            problems.append("protocol: none is named")
        elif key == "iou" and not is_number(value, 0, 1):
            problems.append(f"{key}: expected a number from 0 to 1, got {value!r}")
        elif key in ("score", "at") and not is_number(value, -sys.float_info.max, sys.float_info.max):
            problems.append(f"{key}: expected a number, got {value!r}")
        elif key == "scale" and not (is_number(value, 0, 16) and value > 0):
            problems.append(f"{key}: expected a number above 0, at most 16, got {value!r}")
        elif key in WHOLE and not (isinstance(value, int) and is_number(value, key != "seed", math.inf)):
            problems.append(f"{key}: expected a whole number, got {value!r}")
        elif key in CHOICES and value not in CHOICES[key]:
            problems.append(f"{key}: expected {' or '.join(map(str, CHOICES[key]))}, got {value!r}")
        elif key in ("data", "split", "model", "device", "format", "write") and not isinstance(value, str):
            problems.append(f"{key}: expected text, got {value!r}")
    if problems:
        raise UsageError("val: values that cannot be used", problems=problems)
