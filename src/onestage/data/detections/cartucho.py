"""Text of Cartucho's mAP: one file per image, `class score left top right bottom` in pixels."""

from __future__ import annotations

from pathlib import Path

from onestage.data.detections.comp4 import is_pixel_row, prefixed
from onestage.data.detections.gathering import Gathering
from onestage.data.detections.plain_text import mostly, named, sample, table, text_files
from onestage.data.detections.rows import Rows
from onestage.data.formats.files import text_lines

NAME = "Cartucho txt"
LOOKED_FOR = "IMAGE.txt, rows `class score left top right bottom`"


def recognise(path: Path) -> str | None:
    """Why `path` (a folder or one image's file) is taken for it, in words; None where it is not.

    Rows look like VOC's; which of the two it is, file names and the truth must say.
    """
    if not (path.is_dir() or path.suffix.lower() == ".txt") or prefixed(path):
        return None
    rows = sample(path)
    if not mostly(rows, is_pixel_row):
        return None
    return f"{NAME}: rows such as {' '.join(rows[0])}"


def read(path: Path) -> Rows:
    """The rows of all files of a folder, or of one.

    Left, top, right, bottom are taken as the edges of the box, as they stand; the program itself adds a pixel when it
    compares them, as `voc10+1` does.
    """
    gathered = Gathering()
    for file in text_files(path):
        name = named(file, path)
        image = Path(name).with_suffix("").as_posix()
        rows = table(text_lines(file), 1, 5)
        gathered.speak_of(image)
        for line, why in rows.refused:
            gathered.refuse(name, line, f"{why}; expected class score left top right bottom", image)
        gathered.add(
            name, rows.lines, image, [words[0] for words in rows.words], rows.numbers[:, 1:], rows.numbers[:, 0]
        )
    return gathered.rows()
