"""COCO JSON: instances_*.json, Roboflow's _annotations.coco.json, or one file; read and written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.formats.coco_folder import CocoFile, coco_files, load
from onestage.data.formats.files import file_stem, inside, printable, put_image, put_text, safe_relative, shown
from onestage.data.formats.listing import Listing
from onestage.data.formats.merge import merged
from onestage.data.formats.rows import Row, checked_boxes, compare_size, label_map, number, probed
from onestage.data.formats.splits import in_order
from onestage.errors import DataError, did_you_mean
from onestage.records import Annotations, Finding, ImageId, ImageInfo

NAME = "COCO JSON"
LOOKED_FOR = (
    "annotations/instances_*.json, _annotations.coco.json, or another JSON with images, annotations, categories"
)


def recognise(root: Path) -> str | None:
    """Why `root` (a folder or a .json file) is taken for COCO, in words; None where it is not."""
    files = coco_files(root)
    if not files:
        return None
    return f"{NAME} file{'s' if len(files) > 1 else ''} {', '.join(shown(file.path, root) for file in files.values())}"


def splits(root: Path) -> list[str]:
    """Names of the sets, one per JSON file: 'train2017' for instances_train2017.json."""
    return in_order(coco_files(root))


def read(root: Path, split: str | None, classes: Sequence[str] | None = None, *, probe_images: bool = True) -> Dataset:
    """One split of a COCO folder, or everything for `split=None`. See `read_splits`."""
    return read_splits(root, [split], classes, probe_images=probe_images)[0]


def read_splits(
    root: Path, names: Sequence[str | None], classes: Sequence[str] | None = None, *, probe_images: bool = True
) -> list[Dataset]:
    """Several sets of a COCO folder or file; each JSON is read once.

    [x, y, width, height] becomes xyxy; `iscrowd` and (where written) `difficult` are kept as flags; `area`, the
    annotation's `id` and (where written) `ignore` in `extra`: COCO's own judge (pycocotools 2.0) sets `ignore` from
    `iscrowd` whatever the file says, so that only crowds are regions that do not count. Segmentations are not used.
    Category ids may have gaps: labels follow the ids sorted, over all files asked for; two ids of one name become one
    class. A category that only groups the others (Roboflow writes one) and has no box is left out. Image ids stay as
    they are. `probe_images=False` is for judging detections: it needs no image files, believes the JSON's sizes, and
    keeps the boxes as written, as pycocotools does (see `checked_boxes`).
    Raises DataError for JSON that cannot be read, with file and line, and for an unknown split.
    """
    files = coco_files(root)
    if not files:
        raise DataError(f"{shown(root, root.parent)} holds no {NAME}", problems=[f"looked for {LOOKED_FOR}"])
    wanted = {name for name in names if name is not None}
    for name in sorted(wanted - set(files)):
        raise DataError(f"no set {name!r}{did_you_mean(name, files)}; there are: {', '.join(in_order(files))}")
    used = [name for name in in_order(files) if None in names or name in wanted]
    documents = {name: load(files[name].path) for name in used}
    found = _categories(documents.values())
    chosen = tuple(found if classes is None else classes)
    parts = {name: _read(files[name], documents[name], chosen, probe_images) for name in used}
    if len({tuple(map(str, document["categories"])) for document in documents.values()}) > 1 and classes is None:
        listing = Listing(root)
        listing.add("classes-differ", f"the categories of {', '.join(used)} are not the same list")
        first = parts[used[0]]
        parts[used[0]] = replace(first, findings=(*listing.findings, *first.findings))
    every = [parts[name] for name in used]
    return [(every[0] if len(every) == 1 else merged(every, "all")) if name is None else parts[name] for name in names]


def _categories(documents: Any) -> list[str]:
    """Class names by ascending id over several documents, without placeholders."""
    rows: dict[tuple[int, str], bool] = {}
    parents: set[str] = set()
    for document in documents:
        boxed = {item.get("category_id") for item in document["annotations"] if isinstance(item, dict)}
        for category in document["categories"]:
            key = (category["id"], category["name"])
            rows[key] = rows.get(key, False) or category["id"] in boxed
            parents.add(str(category.get("supercategory")))
    first = min((key[0] for key in rows), default=0)
    kept = [key for key, boxed in sorted(rows.items()) if boxed or not (
        len(rows) > 1 and key[0] == first and key[1] in parents and parents <= {key[1], "none", "None", ""}
    )]  # fmt: skip
    return list(dict.fromkeys(name for _, name in kept))


def _read(file: CocoFile, document: Mapping[str, Any], classes: tuple[str, ...], probe_images: bool) -> Dataset:
    listing, labels = Listing(file.root), label_map(classes)
    names = {category["id"]: category["name"] for category in document["categories"]}
    clear = all(names[category["id"]] == category["name"] for category in document["categories"])
    entries: dict[ImageId, Mapping[str, Any]] = {}
    for entry in document["images"]:
        image_id = entry.get("id") if isinstance(entry, dict) else None
        if (
            not isinstance(image_id, (int, str))
            or isinstance(image_id, bool)
            or not isinstance(entry.get("file_name"), str)
        ):
            listing.add("bad-row", f"an entry of images without id or file_name: {str(entry)[:80]}", file=file.path)
        elif image_id in entries:
            listing.add("repeated-image", f"image id {image_id} stands there twice", file=file.path, image=image_id)
        else:
            entries[image_id] = entry
    rows: dict[ImageId, list[Row]] = {image_id: [] for image_id in entries}
    for index, item in enumerate(document["annotations"]):
        image_id = item.get("image_id") if isinstance(item, dict) else None
        if not isinstance(image_id, (int, str)) or image_id not in rows:
            listing.add(
                "orphan-annotation", f"annotation {index} names image {image_id!r}, which is not listed", file=file.path
            )
        elif (row := _row(item, index, names)) is None:
            listing.add(
                "bad-row", f"annotation {item.get('id', index)}: no bbox of four values", file=file.path, image=image_id
            )
        else:
            rows[image_id].append(row)
    _tell_of_ids(document["annotations"], listing, file)
    finder = _Finder(file, listing)
    images: list[ImageInfo] = []
    truths: dict[ImageId, Annotations] = {}
    for image_id, entry in entries.items():
        image = finder.image(image_id, entry) if probe_images else _believed(image_id, entry, file)
        if image is not None:
            images.append(image)
            truths[image_id] = checked_boxes(
                rows[image_id], image, labels, listing, file.path, as_written=not probe_images
            )
    return Dataset(
        file.root, "coco", file.split, classes, tuple(images), truths, tuple(listing.findings),
        len(document["annotations"]), len(document["images"]), names if clear else {},
    )  # fmt: skip


def _tell_of_ids(annotations: Sequence[Any], listing: Listing, file: CocoFile) -> None:
    ids = [item["id"] for item in annotations if isinstance(item, dict) and isinstance(item.get("id"), (int, str))]
    twice = [key for key, count in Counter(ids).items() if count > 1]
    if twice:
        said = f"{len(twice)} annotation ids stand there more than once, first {twice[0]!r}"
        listing.add("repeated-id", said, file=file.path, count=len(twice))


def _row(item: Mapping[str, Any], index: int, names: Mapping[Any, str]) -> Row | None:
    corners = item.get("bbox")
    if not isinstance(corners, (list, tuple)) or len(corners) != 4:
        return None
    x, y, width, height = map(number, corners)
    category = item.get("category_id")
    name = names.get(category) if isinstance(category, (int, str)) else None
    area = number(item.get("area", width * height))
    extra = {"id": item.get("id", index), "area": area} | ({"ignore": bool(item["ignore"])} if "ignore" in item else {})
    extra |= {"null_id": True} if "id" in item and item["id"] == 0 else {}
    difficult, crowd = bool(item.get("difficult")), bool(item.get("iscrowd"))
    raw = f"annotation {item.get('id', index)}, bbox {json.dumps(corners, default=str)}"
    named = f"category id {category}" if name is None else name
    return Row(named, (x, y, x + width, y + height), raw, None, None, difficult, crowd=crowd, extra=extra)


def _believed(image_id: ImageId, entry: Mapping[str, Any], file: CocoFile) -> ImageInfo | None:
    width, height = number(entry.get("width")), number(entry.get("height"))
    if not (width >= 1 and height >= 1):
        raise DataError(f"{shown(file.path, file.root)}: image {image_id} has no width and height, and is not opened")
    return ImageInfo(
        image_id, file.folders[0] / (safe_relative(entry["file_name"]) or "outside"), int(width), int(height)
    )


class _Finder:
    """Finds image files of one JSON: the folder that held the last one is asked first."""

    def __init__(self, file: CocoFile, listing: Listing) -> None:
        self.file, self.listing, self.folders = file, listing, list(file.folders)

    def image(self, image_id: ImageId, entry: Mapping[str, Any]) -> ImageInfo | None:
        name, file = entry["file_name"], self.file
        path = self._path(name)
        if path is None:
            outside = safe_relative(name) is None
            code, what = ("path-escape", "leads out of the folder") if outside else ("missing-image", "is not there")
            self.listing.add(code, f"file_name {printable(name)!r} {what}", file=file.path, image=image_id)
            return None
        if not inside(path, (file.root, self.folders[0])):
            self.listing.add(
                "path-escape", "the image is a link that leads out of the folder", file=path, image=image_id
            )
            return None
        image = probed(image_id, path, self.listing)
        if image is not None and "width" in entry and "height" in entry:
            compare_size(image, number(entry["width"]), number(entry["height"]), self.listing, file.path)
        return image

    def _path(self, name: str) -> Path | None:
        relative = safe_relative(name)
        if relative is None:  # an absolute path of this machine or another: the file may lie here all the same
            absolute = Path(name)
            if absolute.is_absolute() and inside(absolute, (self.file.root,)) and absolute.is_file():
                return absolute
            return None
        for place in self.folders:
            if (place / relative).is_file():
                self.folders.remove(place)
                self.folders.insert(0, place)
                return place / relative
        return None


def write(dataset: Dataset, root: Path, images: str | None = "copy") -> list[Finding]:
    """Writes one split: annotations/instances_SPLIT.json and images/SPLIT/ (`images`: 'copy', 'link' or None).

    Categories get ids from 1 in the order of the classes. Integer image ids and annotation ids that are unique are
    kept, others are counted from 1; areas are kept, or width x height. A region to ignore is written as a crowd, which
    is what COCO's judge leaves out of the count, with `ignore` beside it. COCO holds everything: the answer is [].
    """
    split = file_stem(dataset.split)
    keep_ids = all(isinstance(image.id, int) for image in dataset.images)
    truths = [dataset.annotations[image.id] for image in dataset.images]
    written = [
        int(i) for t in truths for i in t.extra.get("id", np.full(len(t), -1)) if np.issubdtype(type(i), np.integer)
    ]
    keep_annotation_ids = len(set(written)) == sum(map(len, truths)) and (not written or min(written) >= 0)
    entries: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for count, (image, truth) in enumerate(zip(dataset.images, truths, strict=True), 1):
        name = (image.path.stem if keep_ids else file_stem(image.id)) + image.path.suffix
        image_id = image.id if keep_ids else count
        entries.append({"id": image_id, "file_name": printable(name), "width": image.width, "height": image.height})
        put_image(image.path, root / "images" / split / printable(name), images)
        for i, (x1, y1, x2, y2) in enumerate(truth.boxes.tolist()):
            row = {
                "id": int(truth.extra["id"][i]) if keep_annotation_ids else len(rows) + 1,
                "image_id": image_id, "category_id": int(truth.labels[i]) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(truth.extra["area"][i]) if "area" in truth.extra else (x2 - x1) * (y2 - y1),
                "iscrowd": int(truth.crowd[i] or truth.ignore[i]),
            }  # fmt: skip
            ignored = truth.ignore | truth.extra.get("ignore", truth.ignore).astype(bool)
            row |= {key: 1 for key, flags in (("ignore", ignored), ("difficult", truth.difficult)) if flags[i]}
            rows.append(row)
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(dataset.classes)]
    document = {
        "info": {"description": dataset.split},
        "images": entries,
        "annotations": rows,
        "categories": categories,
    }
    put_text(root / "annotations" / f"instances_{split}.json", json.dumps(document, ensure_ascii=False))
    return []
