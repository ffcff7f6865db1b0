"""Anyone's detection files judged against a dataset, without torch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.detections.coco_json import coco_labels, own_labels
from onestage.data.detections.reading import Found, no_such_place, read_detections
from onestage.data.detections.rows import Numbering
from onestage.data.one_set import open_set, sets_of
from onestage.data.samples import SAMPLES
from onestage.errors import DataError, UsageError
from onestage.evaluation import Evaluation, evaluate, lay_out, usual_protocols
from onestage.experiments.run import Run
from onestage.experiments.truth import TRUTH_FILE
from onestage.records import Detections, Finding, ImageId

# What `categories=` may say; "coco" is the ids of the truth's file.
CATEGORIES = ("coco", "labels", "indices")


@dataclass(frozen=True, eq=False)
class JudgedFile:
    """A detection file judged: on which set, what was read of it, what was wrong, and the scores."""

    path: Path
    data: str
    dataset: Dataset
    found: Found
    evaluation: Evaluation

    @property
    def detections(self) -> Mapping[ImageId, Detections]:
        """The detections by image; images without any are left out."""
        return self.found.detections

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was wrong or odd in the files."""
        return self.found.findings

    def as_dict(self) -> dict[str, Any]:
        """The content of a metrics.json, with what was read and found."""
        return {**self.evaluation.as_dict(), **self.found.as_dict()}


def judge_detections(
    path: str | Path, data: str | Path | None = None, *, split: str | None = None,
    protocols: Sequence[str] | None = None, format: str | None = None, categories: str | None = None,
    classes: Sequence[str] | None = None, score: float | None = None, at: float | None = None, seed: int = 0,
    allow_loss: bool = False, intervals: bool = True, progress: Callable[[str], None] = lambda what: None,
) -> JudgedFile:  # fmt: skip
    """Judge the detections in a file or folder of any known format on a set of `data`.

    `data` may be left away for a run's own predictions.json, which is judged on the run's validation images. `split`
    and `seed` choose the set (`open_set`), `classes` their names and order. `protocols` are names in
    `evaluation.PROTOCOLS`; without them those that fit the data (`fitting_protocols`). `format` is a name in
    `data.detections.FORMATS`, by default as the content says. `categories` says what class numbers mean: "coco" the
    category ids of the truth's file, "labels" places from 1, "indices" places from 0. `score` is the floor below
    which rows are left out, `at` the score of the operating point. With `allow_loss` rows that cannot be judged are
    left out and listed. `progress` is told in words what is being done.

    Raises DataError for data or detections that cannot be used, with every kind of problem, UsageError for a word
    that is not known.
    """
    protocols, classes = several(protocols), several(classes)
    path = Path(path).expanduser()
    if not path.exists():
        raise no_such_place(path)
    run = run_beside(path)
    if data is None and run is None:
        raise UsageError("data= is missing", hint="a dataset folder or file, or the name of a sample (data ls)")
    truth = run.folder / TRUTH_FILE if data is None and run is not None else Path(str(data)).expanduser()
    progress(f"reading {truth.name}")
    dataset = open_set(truth, split, classes=classes, seed=seed, allow_loss=allow_loss, images=False)
    floor = run.metrics.get("score_floor") if score is None and run is not None else score
    floor = float(floor) if isinstance(floor, int | float) else None
    progress(f"reading {path.name}")

    def read(on: Dataset, lossy: bool = allow_loss) -> Found:
        return read_detections(
            path, on, format=format, categories=class_numbers(categories, truth, on, run),
            floor=-math.inf if floor is None else floor, allow_loss=lossy,
        )  # fmt: skip

    try:
        found = read(dataset)
    except DataError as error:
        if split is None and (other := _fitting_set(truth, dataset, read)):
            hint = f"split={other}: the detections fit that set, not {dataset.split}"
            raise DataError(error.message, problems=error.problems, hint=hint) from error
        raise
    _check_scores(found, score, at)
    evaluation = evaluate(
        dataset.truths, found.detections, dataset.classes,
        protocols or fitting_protocols(dataset, found.detections), intervals,
        sizes=dataset.sizes, score_floor=floor, score=at, progress=progress,
    )  # fmt: skip
    return JudgedFile(path, str(truth if data is None else data), dataset, found, evaluation)


def _fitting_set(truth: Path, judged: Dataset, read: Callable[[Dataset, bool], Found]) -> str | None:
    """The first other set of the truth whose images and classes all the detections name; None where none is."""
    fitting = []
    for name in (*sets_of(truth), "all"):
        if name == judged.split:
            continue
        with contextlib.suppress(DataError):
            read(open_set(truth, name, classes=judged.classes, images=False), False)
            fitting.append(name)
    return fitting[0] if fitting else None


def _check_scores(found: Found, score: float | None, at: float | None) -> None:
    """UsageError for a score floor or an operating point that means nothing on these scores, as 50 for 0.5."""
    scores = np.concatenate([np.zeros(0), *(one.scores for one in found.detections.values())])
    if score is not None and score > 1 and found.rows and not len(scores):
        raise UsageError(f"score={score:g}: no detection scores as high", hint="a floor in the numbers of the file")
    if at is not None and not 0 <= at <= 1 and not ((scores < 0) | (scores > 1)).any():
        raise UsageError(f"at={at:g}: all scores lie within 0 and 1", hint="a score in the numbers of the file")


def fitting_protocols(dataset: Dataset, detections: Mapping[ImageId, Detections]) -> tuple[str, ...]:
    """The protocols to judge by where none is asked for: the dataset's own first, where it has one and it fits."""
    return usual_protocols(dataset.format, lay_out(dataset.truths, detections, dataset.classes, dataset.sizes))


def several(names: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Names, which may be one text with commas between; None stays None."""
    if names is None:
        return None
    return tuple(name for part in names.split(",") if (name := part.strip())) if isinstance(names, str) else (*names,)


def run_beside(path: Path) -> Run | None:
    """The run whose predictions.json this is; None for any other file."""
    return Run(path.parent) if path.is_file() and (path.parent / "run.json").is_file() else None


def class_numbers(
    asked: str | None, data: Path, dataset: Dataset, run: Run | None
) -> Mapping[int, int] | Numbering | None:
    """What class numbers mean: as the truth's COCO file numbers its categories, or by the order of classes."""
    if asked not in (None, *CATEGORIES):
        raise UsageError(f"categories={asked}", hint=f"one of {', '.join(CATEGORIES)}")
    if asked in ("labels", "indices"):
        return "labels" if asked == "labels" else "indices"
    if run is not None and asked is None:
        theirs = (run.info.get("data") or {}).get("classes")
        return own_labels(theirs or dataset.classes, dataset.classes)
    ids = _category_ids(dataset)
    if ids is None:
        ids = coco_labels(dataset.root if str(data) in SAMPLES else data, dataset.classes, dataset.split)
    if asked == "coco" and ids is None:
        raise UsageError("categories=coco: the data is no COCO JSON", hint="categories=labels")
    return ids


def _category_ids(dataset: Dataset) -> Mapping[int, int] | None:
    """Category id → label as the files of the dataset have it; None unless they name every class."""
    labels = {name: label for label, name in enumerate(dataset.classes)}
    ids = {number: labels[name] for number, name in dataset.category_ids.items() if name in labels}
    return ids if len(set(ids.values())) == len(labels) and ids else None
