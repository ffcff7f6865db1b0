"""WIDER FACE's .mat files: faces with their attributes, and the row numbers of easy, medium and hard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onestage.errors import DataError
from onestage.records import FloatArray, IntArray

ATTRIBUTES = ("blur", "expression", "illumination", "invalid", "occlusion", "pose")
UNKNOWN = -1  # an attribute that the file does not tell


@dataclass(frozen=True, eq=False)
class Record:
    """One image of a file: its name as written, faces (N, 4) as x, y, width, height, attributes (N, 6), lines (N,).

    `lost` counts its rows that could not be read. The name is "" where it is lost: these faces belong to no image.
    """

    name: str
    faces: FloatArray
    attributes: IntArray
    lines: IntArray | None = None
    line: int | None = None
    lost: int = 0


def holds_faces(path: Path) -> bool:
    """Whether a .mat holds lists of faces, or may do so by its name where it cannot be looked into."""
    from scipy.io import whosmat

    try:
        names = {name for name, _, _ in whosmat(str(path))}
    except Exception:  # of version 7.3, or damaged (scipy raises whatever the bytes lead it to): reading tells which
        return path.name.lower().startswith("wider_face") and path.stat().st_size > 0
    if path.name.lower().startswith("wider_face") and not {"event_list", "file_list"} >= names > set():
        return True  # cut short it may lack the lists; of the test set, which has no faces, these two are all
    return {"face_bbx_list", "file_list", "event_list"} <= names


def mat_records(path: Path) -> list[Record]:
    """Every image of a .mat of faces (wider_face_val.mat), in its order; names are "event/file", without suffix.

    Raises DataError for a file that cannot be read or is laid out otherwise.
    """
    cells = _load(path, "event_list", "file_list", "face_bbx_list", *(f"{name}_label_list" for name in ATTRIBUTES))
    try:
        return [
            Record(name, faces, _attributes(cells, i, j, len(faces)))
            for name, i, j in _names(cells)
            for faces in [_numbers(cells["face_bbx_list"][i][0][j][0]).reshape(-1, 4)]
        ]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _laid_out_otherwise(path, error) from error


def level_rows(path: Path, faces: Path | None) -> dict[str, tuple[FloatArray, IntArray]]:
    """The faces of one level by image name: all faces of the image (N, 4) and the row numbers (n,), from 0.

    `path` is wider_easy_val.mat or the like, `faces` the wider_face_val.mat that it counts in; without it, names and
    faces of the level's own file are taken, which are the same in the official ones. Raises DataError as `mat_records`.
    """
    names = ("event_list", "file_list", "face_bbx_list")
    lists = _load(path, "gt_list", *(() if faces else names))
    cells = _load(faces, *names) if faces else lists
    try:
        return {
            name: (
                _numbers(cells["face_bbx_list"][i][0][j][0]).reshape(-1, 4),
                _numbers(lists["gt_list"][i][0][j][0]).reshape(-1).astype(np.int64) - 1,
            )
            for name, i, j in _names(cells)
        }
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise _laid_out_otherwise(path, error) from error


def _load(path: Path, *names: str) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        return dict(loadmat(str(path), variable_names=list(names)))
    except NotImplementedError as error:
        raise DataError(f"{path.name}: a .mat of version 7.3, which is not read", hint="save it with -v7") from error
    except Exception as error:  # scipy raises whatever the bytes lead it to
        raise DataError(f"{path.name} cannot be read: {error}", hint="is it whole? fetch it again") from error


def _laid_out_otherwise(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path.name} is not laid out as WIDER FACE's ground truth, or cut short: {error} is missing"
        if isinstance(error, KeyError)
        else f"{path.name} is not laid out as WIDER FACE's ground truth: {error}",
        problems=["expected cells event_list, file_list and face_bbx_list, and gt_list in the files of levels"],
        hint="is it whole? fetch it again",
    )


def _names(cells: dict[str, Any]) -> list[tuple[str, int, int]]:
    """Name, event and place within it of every image."""
    return [
        (f"{event[0][0]}/{cells['file_list'][i][0][j][0][0]}", i, j)
        for i, event in enumerate(cells["event_list"])
        for j in range(len(cells["file_list"][i][0]))
    ]


def _attributes(cells: dict[str, Any], event: int, image: int, n: int) -> IntArray:
    result = np.full((n, len(ATTRIBUTES)), UNKNOWN, np.int64)
    for k, name in enumerate(ATTRIBUTES):
        if f"{name}_label_list" in cells:
            result[:, k] = _numbers(cells[f"{name}_label_list"][event][0][image][0]).reshape(-1)
    return result


def _numbers(cell: Any) -> FloatArray:
    return np.asarray(cell, np.float64)
