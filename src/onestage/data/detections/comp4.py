"""VOC challenge results: one text file per class, as `darknet detector valid` writes them too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onestage.data.detections.gathering import Gathering
from onestage.data.detections.plain_text import mostly, named, sample, table, text_files
from onestage.data.detections.rows import Rows
from onestage.data.formats.files import put_text, text_lines
from onestage.data.formats.rows import is_number
from onestage.records import Detections, ImageId

NAME = "VOC comp4 txt"
LOOKED_FOR = "comp4_det_test_CLASS.txt or CLASS.txt, rows `image score xmin ymin xmax ymax`"
CHALLENGE = frozenset(
    [
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ]
)
_FILE = re.compile(r"comp\d+_det_[^_]+_(.+)")


def recognise(path: Path) -> str | None:
    """Why `path` (a folder or one class's file) is taken for VOC results, in words; None where it is not."""
    files = text_files(path) if path.is_dir() or path.suffix.lower() == ".txt" else []
    own = [file for file in files if _FILE.fullmatch(file.stem)]
    if not own and not (files and mostly(sample(path), is_pixel_row)):
        return None
    return f"{NAME}: {', '.join(file.name for file in (own or files)[:3])}{' …' * (len(files) > 3)}"


def is_pixel_row(words: Sequence[str]) -> bool:
    """Whether a row is a word, a number and the corners of a box in pixels (not shares of the image)."""
    if len(words) != 6 or not all(map(is_number, words[1:])):
        return False
    x1, y1, x2, y2 = map(float, words[2:])
    return not (x2 < x1 - 1 or y2 < y1 - 1) and (not is_number(words[0]) or max(x2, y2) > 1.5)


def prefixed(path: Path) -> bool:
    """Whether a file's name itself says that it is one of VOC's."""
    return any(_FILE.fullmatch(file.stem) for file in text_files(path))


def read(path: Path) -> Rows:
    """The rows of all class files of a folder, or of one.

    VOC counts pixels from 1 and the last one belongs to the box: (xmin - 1, ymin - 1, xmax, ymax) here.
    `extra["corners"]` (N, 4) keeps them as written, `extra["place"]` the order of rows, in which the development kit
    takes equal scores. The class is what follows comp4_det_SET_ in the file's name, or the whole name, whose end the
    reader may then take.
    """
    gathered = Gathering()
    for file in text_files(path):
        found, name = _FILE.fullmatch(file.stem), named(file, path)
        rows = table(text_lines(file), 1, 5)
        for line, why in rows.refused:
            gathered.refuse(name, line, f"{why}; expected image score xmin ymin xmax ymax")
        gathered.add(
            name, rows.lines, [words[0] for words in rows.words], found[1] if found else file.stem,
            rows.numbers[:, 1:], rows.numbers[:, 0],
        )  # fmt: skip
    whole = gathered.rows()
    extra = {"corners": whole.boxes, "place": np.arange(len(whole))}
    return replace(whole, boxes=whole.boxes - [1, 1, 0, 0], extra=extra)


def write(detections: Mapping[ImageId, Detections], classes: Sequence[str], folder: Path, split: str = "test") -> None:
    """Write comp4_det_SPLIT_CLASS.txt for every class, best rows first, with enough digits to judge them alike."""
    for label, name in enumerate(classes):
        rows = [
            (-float(score), i, f"{image} {score:.9g} {x1 + 1:.9g} {y1 + 1:.9g} {x2:.9g} {y2:.9g}")
            for i, (image, found) in enumerate(detections.items())
            for (x1, y1, x2, y2), score in zip(
                found.boxes[found.labels == label], found.scores[found.labels == label], strict=True
            )
        ]  # fmt: skip
        text = "".join(f"{row}\n" for _, _, row in sorted(rows, key=lambda row: row[:2]))
        put_text(folder / f"comp4_det_{split}_{name}.txt", text)
