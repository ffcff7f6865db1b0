"""`onestage predict`: boxes on images, drawn, as JSON and as YOLO text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.api import Detector
    from onestage.cli.terminal import Terminal
    from onestage.deploy.predict import Prediction

KEYS = (
    ("out", "RUN/predict or ./predictions", "folder that results are written to"),
    ("format", "none", "write a benchmark's files to OUT/FORMAT too: widerface, fddb, yolo, comp4"),
    ("plus_one", "false", "in these: widths and heights one larger, as FaceBoxes' own programs write them"),
    (
        "score",
        "0.4; 0.01 with format",
        "lowest score of a detection that is kept, 0 to 1; with format pictures show those from 0.4",
    ),
    ("iou", "0.45, or the model's", "overlap above which the weaker of two boxes of a class goes"),
    ("candidates", "400, or the model's", "boxes of each class in an image that are looked at for that"),
    ("most", "100, or the model's", "detections of an image that are kept"),
    ("batch", "8", "images that go through the network together"),
    ("device", "automatic", "cpu, cuda, mps"),
    ("engine", "torch", "what runs the network: torch, onnxruntime, openvino"),
    ("precision", "fp32", "fp32, bf16 (torch, openvino), int8 (onnxruntime, openvino)"),
    ("threads", "all cores", "threads of the engine"),
    ("calibration", "the images themselves", "images that precision=int8 learns the range of each layer from"),
    ("model", "as the weights say", "for weights of other programs: a model by name"),
    ("classes", "as the weights say", "for weights of other programs: class names in order, [a,b,…]"),
    ("fit", "as the weights say", "how images come to the network: squash, letterbox, or native, their own pixels"),
    ("scale", "as the weights say, or 1", "of fit=native: images at so many times their own pixels"),
)
EXAMPLES = (
    ("predict ssd-lite0-trees-001 photos/", "a run's best weights on a folder"),
    ("predict best.safetensors 'a/*.jpg' b.png score=0.6 out=found", "weights, globs and files"),
    ("predict faceboxes-wider WIDER_val/images format=widerface out=found", "files for a benchmark's own tool"),
    ("predict faceboxes-wider photos engine=openvino precision=bf16", "another engine, twice as fast on a CPU"),
    ("predict weights.pth photos model=ssd300 classes=[cat,dog]", "another program's weights"),
)
MARK = "predictions.coco.json"


@verb(examples=EXAMPLES, keys=KEYS)
def predict(
    words: Annotated[list[str], typer.Argument(metavar="RUN|WEIGHTS SOURCE… [KEY=VALUE…]", show_default=False)],
    no_draw: Annotated[bool, typer.Option("--no-draw", help="Write no drawn images.")] = False,
    as_json: Json = False,
) -> None:
    """Find objects in images, folders and globs; draw them, write predictions.json and labels/*.txt."""
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import split_words
    from onestage.data.detections.writing import refuse_filled, refuse_unwritable
    from onestage.deploy.sources import sources
    from onestage.errors import DataError, UsageError

    places, keys = split_words(words)
    settings = _checked(keys)
    if len(places) < 2:
        raise UsageError(
            "predict: expected a run or weights and then images", hint="onestage predict RUN photos/ other.jpg"
        )
    from onestage.api import Detector  # brings torch: only once the words are right

    terminal = Terminal(as_json)
    detector = Detector.load(
        places[0], settings["model"], settings["classes"], settings["fit"], scale=settings["scale"]
    )
    if settings["scale"] is not None and detector.fit != "native":
        raise UsageError(f"scale has no effect on fit={detector.fit}", hint="fit=native")
    default = Path("predictions") if detector.run is None else detector.run.folder / "predict"
    out = Path(settings["out"]).expanduser() if settings["out"] else default
    _refuse_foreign(out)
    if settings["format"] is not None:
        refuse_unwritable(settings["format"], detector.classes, settings["plus_one"])
        refuse_filled(out / settings["format"])
    paths = sources(places[1:], leave_out=out)
    width, height = detector.model.size
    at = f"{width}x{height}" if detector.fit != "native" else f"images at {_times(detector.scale)} pixels"
    classes = "1 class" if len(detector.classes) == 1 else f"{len(detector.classes)} classes"
    terminal.say(f"{detector.name}, {classes}, {at}, {_images(len(paths))} to {out}")
    job = _Job(detector, paths, out, settings, draws=not no_draw)
    if job.engine.difference:
        what = f"{settings['engine']}, {settings['precision']}"
        terminal.say(f"{what}: on a test picture {job.engine.difference}")
    found = job.run(terminal)
    if not found:
        raise DataError(
            "none of the images could be read", problems=[_left_out(path, why) for path, why in job.skipped[:20]]
        )
    _tell(terminal, job, found)


class _Job:
    """One call of predict: images through the network, results written as they come."""

    def __init__(
        self, detector: Detector, paths: Sequence[Path], out: Path, settings: Mapping[str, Any], draws: bool
    ) -> None:
        self.detector, self.paths, self.out, self.settings, self.draws = detector, paths, out, settings, draws
        self.skipped: list[tuple[Path, str]] = []
        self.seconds = 0.0
        self.shown = settings["shown"]
        self.engine = detector.predictor(
            settings["device"], engine=settings["engine"], precision=settings["precision"], threads=settings["threads"],
            calibration=settings["calibration"] or paths,
        )  # fmt: skip

    def run(self, terminal: Terminal) -> list[Prediction]:
        """Every image's prediction; drawn images, text files and both JSON files are written."""
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        from onestage.data.formats.files import put_text
        from onestage.data.transform import write_jpeg
        from onestage.deploy.outputs import as_coco, as_json, write_benchmark, write_yolo_txt
        from onestage.experiments.storage import as_json as text_of
        from onestage.report.draw import draw

        put_text(self.out / MARK, "[]\n")
        found: list[Prediction] = []
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=terminal.console, disable=not terminal.live, transient=True) as bar:
            task = bar.add_task("images", total=len(self.paths))
            for one in self._timed():
                found.append(one)
                write_yolo_txt([one], self.out / "labels")
                if self.draws:
                    drawn = draw(one.image(), one.detections.above(self.shown), classes=one.classes)
                    write_jpeg(self.out / f"{one.name}.jpg", drawn)
                bar.update(task, completed=len(found) + len(self.skipped))
        put_text(self.out / "predictions.json", text_of(as_json(found)))
        put_text(self.out / MARK, text_of(as_coco(found)))
        if (form := self.settings["format"]) is not None:
            terminal.say(f"{form}: {write_benchmark(found, form, self.out / form, self.settings['plus_one'])}")
        return found

    def _timed(self) -> Iterator[Prediction]:
        """The predictions; `seconds` counts reading and the network, not what is done with them."""
        from onestage.deploy.predict import predict
        from onestage.models.inference import shown_selection

        detector, settings = self.detector, self.settings
        limits = {key: settings[key] for key in ("score", "iou", "candidates", "most")}
        answers = predict(
            self.engine, self.paths, detector.classes, detector.model.size, detector.fit,
            shown_selection(detector.name, **limits), batch=settings["batch"], scale=detector.scale,
            skipped=lambda path, why: self.skipped.append((path, why)),
        )  # fmt: skip
        while True:
            begin = time.perf_counter()
            one = next(answers, None)
            self.seconds += time.perf_counter() - begin
            if one is None:
                return
            yield one


def _tell(terminal: Terminal, job: _Job, found: Sequence[Prediction]) -> None:
    from onestage.deploy.outputs import as_json

    boxes = Counter(name for one in found for name in one.class_names)
    images = Counter(name for one in found for name in set(one.class_names))
    rate = len(found) / job.seconds if job.seconds else 0.0
    if boxes:
        ranked = sorted(boxes, key=lambda name: (-boxes[name], name))
        terminal.table(("class", "detections", "images"), [(n, str(boxes[n]), str(images[n])) for n in ranked])
    else:
        terminal.say(f"nothing was found with a score of {job.settings['score']:g} or more; a lower score=… shows more")
    for path, why in job.skipped[:10]:
        terminal.say(f"left out: {_left_out(path, why)}", style="yellow")
    if len(job.skipped) > 10:
        terminal.say(f"left out: {len(job.skipped) - 10} more", style="yellow")
    terminal.say(f"{_images(len(found))}, {boxes.total()} detections, {rate:.1f} images/s; results are in {job.out}")
    terminal.result({
        "out": str(job.out), "images": len(found), "images_per_second": round(rate, 2),
        "detections": dict(boxes), "skipped": [{"path": str(path), "why": why} for path, why in job.skipped],
        "predictions": as_json(found),
    })  # fmt: skip


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _times(scale: float) -> str:
    return "their own" if scale == 1 else f"{scale:g} times their own"


def _left_out(path: Path, why: str) -> str:
    return why if str(path) in why else f"{path}: {why}"


def _checked(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with their defaults; UsageError names every one that is unknown or out of range."""
    from onestage.boxes.selection import PRESETS
    from onestage.cli.words import is_number, known_only
    from onestage.deploy.engines import check_engine
    from onestage.errors import UsageError

    known_only("predict", keys, [key for key, _, _ in KEYS])
    view = PRESETS["view"]
    defaults = {
        "out": None, "score": view.score, "iou": None, "candidates": None, "most": None, "batch": 8, "device": None,
        "model": None, "classes": (), "fit": None, "scale": None, "format": None, "plus_one": False,
        "engine": "torch", "precision": "fp32", "threads": None, "calibration": None,
    }  # fmt: skip
    if keys.get("format") is not None:
        defaults["score"] = PRESETS["evaluate"].score
    defaults["shown"] = view.score if keys.get("score") is None else 0.0
    settings = {**defaults, **{key: value for key, value in keys.items() if value is not None}}
    classes = settings["classes"]
    settings["classes"] = (classes,) if isinstance(classes, str) else classes
    checks = {
        "score": (is_number(settings["score"], 0, 1), "a number from 0 to 1"),
        "iou": (_open(settings["iou"], lambda v: is_number(v, 0, 1) and v > 0), "a number above 0, at most 1"),
        "candidates": (_open(settings["candidates"], _counts), "a whole number from 1 on"),
        "most": (_open(settings["most"], _counts), "a whole number from 1 on"),
        "batch": (_counts(settings["batch"]), "a whole number from 1 on"),
        "classes": (isinstance(settings["classes"], list | tuple), "a list of names, [a,b,…]"),
        "fit": (settings["fit"] in (None, "squash", "letterbox", "native"), "squash, letterbox or native"),
        "plus_one": (isinstance(settings["plus_one"], bool), "true or false"),
        "scale": (_open(settings["scale"], lambda v: is_number(v, 0, 16) and v > 0), "a number above 0, at most 16"),
    }
    if settings["plus_one"] and settings["format"] is None:
        raise UsageError("plus_one has no effect without format", hint="format=widerface or format=fddb")
    wrong = [f"{key}: expected {what}, got {settings[key]!r}" for key, (fine, what) in checks.items() if not fine]
    if wrong:
        raise UsageError("predict cannot use these values" if len(wrong) > 1 else wrong[0],
                         problems=wrong if len(wrong) > 1 else ())  # fmt: skip
    check_engine(*(settings[key] for key in ("engine", "precision", "threads", "device")))
    if settings["calibration"] is not None and settings["precision"] != "int8":
        raise UsageError("calibration has no effect without precision=int8", hint="precision=int8")
    settings["classes"] = tuple(map(str, settings["classes"]))
    return settings


def _counts(value: Any) -> bool:
    return type(value) is int and value >= 1


def _open(value: Any, fine: Callable[[Any], bool]) -> bool:
    """Whether a value is left open or fine."""
    return value is None or fine(value)


def _refuse_foreign(out: Path) -> None:
    """UsageError where results would mingle with files of someone else, whose labels or images they could replace."""
    from onestage.errors import UsageError

    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file()):
        raise UsageError(f"{out} holds something that predict did not write", hint="out=FOLDER names a new folder")
