"""What is compared: arms of one or several seeds, each a run or a detection file with its truth."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from onestage.analysis.judging import class_numbers, run_beside
from onestage.data.dataset import Dataset
from onestage.data.detections.coco_json import own_labels
from onestage.data.detections.reading import no_such_place, read_detections
from onestage.data.one_set import open_set
from onestage.errors import DataError, UsageError
from onestage.experiments.run import Run
from onestage.experiments.truth import TRUTH_FILE, read_truth
from onestage.records import Annotations, Detections, ImageId

Place = str | Path | Run
FILES = (".json", ".csv", ".tsv", ".txt")


@dataclass(frozen=True, eq=False)
class Member:
    """One detector's answers and the truth they are judged by.

    `floor` is the score below which it kept nothing, None where not known. `protocols` are those a run was judged
    by, `settings` what else shaped its detections (IoU of non-maximum suppression); both empty for a file.
    `notes` say what was odd in its rows.
    """

    name: str
    truths: Mapping[ImageId, Annotations]
    classes: tuple[str, ...]
    detections: Mapping[ImageId, Detections]
    sizes: Mapping[ImageId, tuple[int, int]]
    floor: float | None = None
    protocols: tuple[str, ...] = ()
    settings: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Arm:
    """One side of a comparison: the same recipe with one or several seeds."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Reading:
    """How detection files are to be read: their truth, its set, format and class numbers, score floor, bad rows."""

    data: str | Path | None = None
    split: str | None = None
    classes: tuple[str, ...] | None = None
    categories: str | None = None
    floor: float | None = None
    format: str | None = None
    allow_loss: bool = False


def read_arms(
    arms: Sequence[Place | Sequence[Place]], reading: Reading, names: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda what: None,
) -> tuple[Arm, ...]:  # fmt: skip
    """Read what is to be compared; an arm is a place or several (text: joined by commas), the seeds of one recipe.

    A place is a run (folder, name, or its predictions.json) or a detection file, judged by `reading.data` or else by
    the truth of the first run. `progress` is told what is being read. Raises UsageError for fewer than two arms,
    unknown runs, a place named twice in an arm and names that do not fit, DataError for what cannot be read.
    """
    places = [_places(arm) for arm in arms]
    if len(places) < 2:
        raise UsageError(
            f"compare: two arms are needed, got {len(places)}",
            hint="onestage compare A B; seeds of one arm: A1,A2 B1,B2",
        )
    for seeds in places:
        count = Counter(map(_where, seeds))
        twice = sorted(str(place) for place in seeds if count[_where(place)] > 1)
        if twice:
            raise UsageError(f"{twice[0]} stands twice in one arm", hint="an arm names each of its seeds once")
    called = _names(places, names)
    files = _Files(reading, [place for seeds in places for place in seeds])
    everywhere = {_where(place): place for seeds in places for place in seeds}
    read = {}
    for where, place in everywhere.items():
        progress(f"reading {place}")
        read[where] = _member(place, files)
    return tuple(
        Arm(name, tuple(read[_where(place)] for place in seeds)) for name, seeds in zip(called, places, strict=True)
    )


class _Files:
    """Reads detection files; their truth is opened when the first is met."""

    def __init__(self, reading: Reading, places: Sequence[Place]) -> None:
        self.reading, self.places = reading, places
        self.dataset: Dataset | None = None
        self.truth = Path()

    def read(self, path: Path) -> Member:
        dataset = self.dataset = self.dataset or self._open()
        reading = self.reading
        numbers = class_numbers(reading.categories, self.truth, dataset, None)
        floor = -math.inf if reading.floor is None else reading.floor
        found = read_detections(
            path, dataset, numbers, format=reading.format, floor=floor, allow_loss=reading.allow_loss
        )
        notes = tuple(f"{path.name}: {finding.what}" for finding in found.findings)
        return Member(
            path.stem, dataset.truths, dataset.classes, found.detections, dataset.sizes, reading.floor, notes=notes
        )

    def _open(self) -> Dataset:
        reading = self.reading
        data = reading.data
        if data is None:
            run = next((run for place in self.places if (run := _run(place)) is not None), None)
            if run is None:
                raise UsageError(
                    "compare: detection files need their truth: data=… is missing",
                    hint="a dataset folder or file, or the name of a sample (data ls)",
                )
            data = run.folder / TRUTH_FILE
        self.truth = Path(data).expanduser()
        return open_set(data, reading.split, classes=reading.classes, allow_loss=reading.allow_loss, images=False)


def _member(place: Place, files: _Files) -> Member:
    run = _run(place)
    path = Path(str(place))
    if run is None and (path.exists() or _is_file(place)):
        if not path.exists():
            raise no_such_place(path)
        return files.read(path)
    return _run_member(run or _opened(place), files.reading.floor)


def _opened(place: Place) -> Run:
    """The run of that name; UsageError says that there is no file or folder of it either."""
    try:
        return Run.open(str(place))
    except UsageError as error:
        said = f"{error.message}, nor a file or folder of detections called so"
        raise UsageError(said, problems=error.problems, hint=error.hint) from None


def _run_member(run: Run, floor: float | None) -> Member:
    truth = read_truth(run)
    lacks = [name for name in (TRUTH_FILE, "predictions.json") if not (run.folder / name).is_file()]
    if truth is None or lacks:
        raise DataError(
            f"run {run.name} has no {' and no '.join(lacks)}: it is {run.info.get('status')}"
            + " and was never judged" * (len(lacks) == 2),
            hint="compare runs that were judged, or detection files",
        )
    dataset = Dataset(run.folder, "coco", "val", truth.classes, truth.images, truth.annotations)
    judged = run.metrics
    kept = judged.get("score_floor")
    known = max((float(value) for value in (kept, floor) if isinstance(value, int | float)), default=None)
    # predictions.json numbers classes as the run's own list does, as the truth beside it
    categories = own_labels(truth.classes, truth.classes)
    lowest = -math.inf if floor is None else floor
    found = read_detections(run.folder / "predictions.json", dataset, categories, format="coco", floor=lowest)
    validation = run.recipe.get("validation")
    iou = validation.get("iou") if isinstance(validation, Mapping) else None
    settings = {} if iou is None else {"IoU of non-maximum suppression": iou}
    named = judged.get("protocols")
    protocols = tuple(map(str, named)) if isinstance(named, list) else ()
    return Member(
        run.name, truth.annotations, truth.classes, found.detections, dataset.sizes, known, protocols, settings
    )


def _run(place: Place) -> Run | None:
    """The run that a place certainly is: a record, or a folder or file of one; None for a name or another file."""
    if isinstance(place, Run):
        return place
    path = Path(place)
    if path.is_file():
        return run_beside(path)
    try:
        return None if _is_file(place) else Run.open(place)
    except UsageError:
        return None


def _is_file(place: Place) -> bool:
    path = Path(str(place))
    return path.is_file() or (path.suffix.lower() in FILES and not path.is_dir())


def _where(place: Place) -> str:
    run = _run(place)
    return str((run.folder if run else Path(str(place))).resolve())


def _places(arm: Place | Sequence[Place]) -> tuple[Place, ...]:
    if isinstance(arm, Path | Run):
        return (arm,)
    if isinstance(arm, str):
        arm = [arm] if Path(arm).exists() else [word.strip() for word in arm.split(",") if word.strip()]
    if not arm:
        raise UsageError("compare: an arm is empty", hint="onestage compare A B")
    return tuple(arm)


def _names(places: Sequence[Sequence[Place]], given: Sequence[str] | None) -> list[str]:
    if given is not None:
        if len(given) != len(places) or len(set(given)) != len(given):
            raise UsageError(f"names: expected {len(places)} different names, got {list(given)}")
        return list(given)
    said = [_called(seeds) for seeds in places]
    if len(set(said)) == len(said):
        return said
    said = [str(seeds[0]) if len(seeds) == 1 else name for name, seeds in zip(said, places, strict=True)]
    return said if len(set(said)) == len(said) else [chr(65 + i % 26) + "'" * (i // 26) for i in range(len(places))]


def _called(seeds: Sequence[Place]) -> str:
    """What an arm is called: its place, or what the names of its seeds begin with alike ("base-001,base-002": base)."""
    said = [run.name if (run := _run(place)) else Path(str(place)).stem for place in seeds]
    shared = re.sub(r"[-_.]*0*$", "", _beginning(said)) if len(said) > 1 else said[0]
    return shared or f"{said[0]} and {len(said) - 1} more"


def _beginning(words: Sequence[str]) -> str:
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*words, strict=False))
    return "".join(letters[0] for letters in alike)
