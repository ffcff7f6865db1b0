"""Face lists: one image per line with all its boxes, `path n x y w h 1 …`; read and written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.formats.facelist_folder import face_lists, head_layout
from onestage.data.formats.facelist_reading import CLASS, FaceList, one_list, read_list
from onestage.data.formats.files import file_stem, printable, put_image, put_text, shown
from onestage.data.formats.listing import Listing
from onestage.data.formats.merge import merged
from onestage.data.formats.rows import label_map
from onestage.data.formats.splits import in_order
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, Finding

NAME = "face list"
LOOKED_FOR = "a text with a line per image, path n x y w h 1 x y w h 1 …, in the folder or in label or lists below"


def recognise(root: Path) -> str | None:
    """Why `root` (a text file, or a folder with some) is taken for face lists, in words; None where it is not."""
    files = face_lists(root)
    if not files:
        return None
    paths = [path for split in in_order(files) for path in files[split]]
    layouts = dict.fromkeys(str(layout) for path in paths if (layout := head_layout(path)[0]) is not None)
    names = ", ".join(shown(path, root if root.is_dir() else root.parent) for path in paths)
    said = f" (lines: {' or '.join(layouts)})" if layouts else ""
    return f"{NAME}{'s' * (len(paths) > 1)} {names}{said}"


def splits(root: Path) -> list[str]:
    """Names of the sets: train, val, test where the names of the lists tell, else the lists by their own names."""
    return in_order(face_lists(root))


def read(root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True) -> Dataset:
    """One set, or everything for `split=None`. See `read_splits`."""
    return read_splits(root, [split], classes, probe_images=probe_images)[0]


def read_splits(
    root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None, *, probe_images: bool = True
) -> list[Dataset]:
    """Several sets of face lists; each file is read once.

    A line is a path, a count or none, and x, y, width, height in pixels per box, with a class number behind or without;
    which of the four layouts a file has is seen from its lines. The one class is "face"; several class numbers are
    called "1", "2", …, or by `classes` in their order, counted from 0 where the lists have a 0, else from 1.

    Boxes are kept as written, also over the border; one without area is kept as `ignore` with extra["degenerate"];
    extra["line"] tells where each stands. An image's id is its path as written, without ending. The boxes of an image
    that stands in several lines are put together. `probe_images=False` opens no image; sizes are then 0 x 0.

    Raises DataError where most lines fit no layout, where the numbers are shares of the image or corners instead of
    sizes, for an unknown set, and for `classes` that cannot be meant by the numbers.
    """
    files = face_lists(root)
    if not files:
        raise DataError(f"{shown(root, root.parent)} holds no {NAME}", problems=[f"looked for {LOOKED_FOR}"])
    for name in names:
        if name is not None and name not in files:
            raise DataError(f"no set {name!r}{did_you_mean(name, files)}; there are: {', '.join(in_order(files))}")
    home = root if root.is_dir() else root.parent
    lists = {split: [one_list(path, split, home) for path in paths] for split, paths in files.items()}
    every = [one for several in lists.values() for one in several]
    numbers = sorted({number for one in every for number in one.numbers})
    chosen, labels = labels_of(numbers, any(one.layout.columns == 5 for one in every), classes)
    named = {str(number): chosen[label] for number, label in labels.items()}
    renamed = named if any(name not in (CLASS, number) for number, name in named.items()) else {}
    used = [split for split in in_order(files) if None in names or split in names]
    parts = {split: _set(lists[split], split, chosen, labels, renamed, probe_images) for split in used}
    whole = [parts[split] for split in used]
    return [(whole[0] if len(whole) == 1 else merged(whole, "all")) if name is None else parts[name] for name in names]


def _set(
    lists: Sequence[FaceList], split: str, classes: tuple[str, ...], labels: dict[int, int], renamed: dict[str, str],
    probe_images: bool,
) -> Dataset:  # fmt: skip
    sets = []
    for one in lists:
        if renamed:
            what = ", ".join(f"class number {number} is {name}" for number, name in renamed.items())
            one.listing.add("numbered-classes", what, file=one.path, numbers=renamed)
        sets.append(read_list(one, classes, labels, probe_images))
    return sets[0] if len(sets) == 1 else merged(sets, split)


def labels_of(
    numbers: Sequence[int], told: bool, classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[int, int]]:  # fmt: skip
    """The class list, and the label of each class number; DataError where `classes` cannot be meant by the numbers.

    `numbers` are those of the lists, `told` whether they have a column of them (else all is number 1, one class).
    """
    own = (CLASS,) if len(numbers) <= 1 else tuple(map(str, numbers))
    if classes is None:
        return own, {number: label for label, number in enumerate(numbers)}
    chosen, known = tuple(classes), label_map(tuple(classes))
    by_name = {number: known[name] for number, name in zip(numbers, own, strict=False) if name in known}
    if by_name or not numbers:
        return chosen, by_name
    first = 0 if 0 in numbers else 1
    if len(own) == 1 and (len(chosen) == 1 or not told):
        if len(chosen) == 1:
            return chosen, {numbers[0]: 0}
    elif numbers[-1] - first < len(chosen):
        return chosen, {number: number - first for number in numbers}
    said = f"class numbers {', '.join(map(str, numbers))}" if told and len(own) > 1 else f"the one class {CLASS!r}"
    raise DataError(
        f"the {NAME} has {said}, classes names {', '.join(chosen)}",
        hint=f"classes=[{', '.join(own)}], or a name for each number, counted from {first}",
    )


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes one set: SET.txt with lines `path n x y w h 1 …`, and images/SET ('copy', 'link' or None).

    A class is written as its label + 1. Boxes to ignore are left out, those without area are written. The findings tell
    what is lost: class names other than "face", the flags ignore, difficult and crowd.
    """
    listing, split = Listing(root), file_stem(dataset.split)
    target = root / f"{split}.txt"
    lines: list[str] = []
    left_out = 0
    for image in dataset.images:
        name = printable(f"{file_stem(image.id)}{image.path.suffix}")
        put_image(image.path, root / "images" / split / name, images)
        truth = dataset.annotations[image.id]
        kept = truth.take(~(truth.ignore | truth.crowd) | _without_area(truth))
        left_out += len(truth) - len(kept)
        lines.append(" ".join([name, str(len(kept)), *_words(kept)]))
    if dataset.classes != (CLASS,):
        what = ", ".join(f"{name} is written as {label + 1}" for label, name in enumerate(dataset.classes))
        listing.add("numbered-classes", what, file=target)
    if left_out:
        what = f"{left_out} box{'es' * (left_out != 1)} left out: a {NAME} has no flag for boxes to ignore"
        listing.add("lost-flag", what, file=target)
    difficult = sum(int(dataset.annotations[image.id].difficult.sum()) for image in dataset.images)
    if difficult:
        listing.add("lost-flag", f"{difficult} marked difficult: a {NAME} has no place for it", file=target)
    put_text(target, "".join(f"{line}\n" for line in lines))
    return listing.findings


def _without_area(truth: Annotations) -> np.ndarray:
    return np.asarray(((truth.boxes[:, 2:] - truth.boxes[:, :2]) <= 0).any(1), np.bool_)


def _words(truth: Annotations) -> list[str]:
    sides = np.concatenate([truth.boxes[:, :2], truth.boxes[:, 2:] - truth.boxes[:, :2]], axis=1)
    rows = zip(sides.tolist(), truth.labels.tolist(), strict=True)
    return [word for row, label in rows for word in (*(_plain(value) for value in row), str(label + 1))]


def _plain(value: float) -> str:
    return f"{value:.12g}" if math.isfinite(value) else "nan"
