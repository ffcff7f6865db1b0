"""The default data set and other fetchable ones, by name."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import defusedxml
import defusedxml.ElementTree

from onestage.data.images import decode
from onestage.data.transform import Tile, split_ground, tile, tile_name, write_coco, write_whole
from onestage.errors import DataError, FetchError, StorageError, UsageError, did_you_mean
from onestage.fetch import cache_folder, registry_files
from onestage.records import Annotations

Counts = dict[str, dict[str, int]]
Build = Callable[[Mapping[str, Path], Path], Counts]


@dataclass(frozen=True)
class Sample:
    """A data set that can be fetched: what it is, whose it is, where it comes from, and how it is built.

    `edition` grows whenever the same source is cut or labelled differently; a folder of another edition is rebuilt.
    """

    name: str
    edition: int
    description: str
    classes: tuple[str, ...]
    licence: str
    package: str
    version: str
    sha256: str
    size_mb: float
    members: tuple[str, ...]
    how: str
    build: Build

    def origin(self) -> dict[str, Any]:
        """What makes a built folder this sample and no other; compared before a folder is used again."""
        names = ("name", "edition", "package", "version", "sha256", "licence", "classes", "how")
        return json.loads(json.dumps({name: getattr(self, name) for name in names}))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Held:
    """A line of `data ls`: a sample, the folder it has or would have, and its counts where it is there."""

    sample: Sample
    folder: Path
    counts: Counts | None


def get(name: str, root: Path | None = None) -> Path:
    """The folder of a sample, ready for `data=`; fetched and built where it is not there yet.

    It lies in `root`, else $ONESTAGE_DATA, else the cache's `datasets`. It is built beside its place and moved there
    whole; a folder of the same origin is used again. Raises UsageError for an unknown name, FetchError, StorageError,
    DataError where another folder is in the way.
    """
    if name not in SAMPLES:
        known = ", ".join(SAMPLES)
        raise UsageError(f"no sample data set {name!r}{did_you_mean(name, SAMPLES)}; there are: {known}")
    sample = SAMPLES[name]
    folder = _home(root) / name
    if _counts(sample, folder) is not None:
        return folder
    if folder.exists() and not (folder / "sample.json").is_file():
        raise DataError(f"{folder} is in the way: it is not the sample {name!r}", hint="move it, or set ONESTAGE_DATA")
    files = registry_files(
        sample.package, sample.version, sample.sha256, sample.members, licence=sample.licence, size_mb=sample.size_mb
    )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=folder.parent) as beside:
            built = Path(beside) / name
            _build(sample, files, built)
            if folder.exists():
                folder.replace(Path(beside) / "former")
            built.replace(folder)
    except OSError as error:
        if _counts(sample, folder) is not None:  # another process was faster
            return folder
        hint = "free some space, or let ONESTAGE_DATA name another folder"
        raise StorageError(f"cannot write {folder}: {error.strerror}", hint=hint) from error
    return folder


def ls(root: Path | None = None) -> list[Held]:
    """Every sample, with its folder and, where that is built, its counts."""
    folders = [(sample, _home(root) / name) for name, sample in SAMPLES.items()]
    return [Held(sample, folder, _counts(sample, folder)) for sample, folder in folders]


def _home(root: Path | None) -> Path:
    named = os.environ.get("ONESTAGE_DATA")
    return root or (Path(named).expanduser() if named else cache_folder() / "datasets")


def _counts(sample: Sample, folder: Path) -> Counts | None:
    """The counts of a folder that is this sample, built whole; else None."""
    try:
        record = json.loads((folder / "sample.json").read_text(encoding="utf-8"))
        counts: Counts = record["counts"]
        if {key: record[key] for key in sample.origin()} != sample.origin():
            return None
        for split, count in counts.items():
            if len(list((folder / "images" / split).glob("*.jpg"))) != count["images"]:
                return None
            if not (folder / "annotations" / f"instances_{split}.json").is_file():
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return counts


def _build(sample: Sample, files: Mapping[str, Path], out: Path) -> None:
    counts = sample.build(files, out)
    for member, path in files.items():
        if Path(member).name == "LICENSE":
            write_whole(out / "LICENSE", path.read_bytes())
    lines = [f"{split}: {count['images']} images, {count['boxes']} boxes" for split, count in counts.items()]
    readme = (
        f"# {sample.name}\n\n{sample.description}\n\n{sample.how}\n\n- classes: {', '.join(sample.classes)}\n"
        + "".join(f"- {line}\n" for line in lines)
        + f"- source: registry package {sample.package} {sample.version}, wheel sha256 {sample.sha256}\n"
        f"- licence: {sample.licence}\n- format: COCO JSON; made by onestage, edition {sample.edition}\n"
    )
    write_whole(out / "README.md", readme.encode())
    write_whole(out / "sample.json", (json.dumps({**sample.origin(), "counts": counts}, indent=1) + "\n").encode())


# ---- trees


@dataclass(frozen=True)
class TreesPlan:
    """How the photographs of `trees` become tiles; lengths in pixels.

    The validation ground is the right part of `validation`, the largest photograph. No box there is wider than 108
    pixels, so with the margin of 112 no tree shows on both sides.
    """

    folder: str = "deepforest/data"
    photographs: tuple[str, ...] = (
        "2019_YELL_2_528000_4978000_image_crop2", "2019_YELL_2_541000_4977000_image_crop", "OSBS_029", "SOAP_061",
    )  # fmt: skip
    validation: str = "2019_YELL_2_528000_4978000_image_crop2"
    right_part: int = 640
    margin: int = 112
    size: int = 320
    train_overlap: float = 0.5
    min_visible: float = 0.4


def build_trees(files: Mapping[str, Path], out: Path, plan: TreesPlan | None = None) -> Counts:
    """Writes the tiles of `trees` to `out` from the photographs (member → path) and counts them.

    Training tiles overlap by half; validation tiles are cells that share no pixel, so that nothing is counted twice.
    """
    plan = plan or TreesPlan()
    return {split: write_coco(out, split, ("tree",), _tree_tiles(files, plan, split)) for split in ("train", "val")}


def _tree_tiles(files: Mapping[str, Path], plan: TreesPlan, split: str) -> Iterator[tuple[str, Tile]]:
    for stem in plan.photographs:
        if split == "val" and stem != plan.validation:
            continue
        image = decode(files[f"{plan.folder}/{stem}.png"])
        height, width = image.shape[:2]
        truth = read_trees(files[f"{plan.folder}/{stem}.xml"], width, height)
        grounds = split_ground(width, height, plan.right_part, plan.margin) if stem == plan.validation else (None, None)
        ground, overlap = (grounds[1], 0.0) if split == "val" else (grounds[0], plan.train_overlap)
        for piece in tile(image, truth, plan.size, overlap, plan.min_visible, ground):
            yield tile_name(stem, piece.window), piece


def read_trees(path: Path, width: int, height: int) -> Annotations:
    """The boxes of one photograph's VOC file; every class (Tree, Dead, Alive) becomes label 0.

    The file counts pixels from 1 and includes the last one: (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1,
    xmax, ymax). Raises FetchError where the file is not the one this was written for.
    """
    try:
        root = defusedxml.ElementTree.fromstring(path.read_bytes())
        said = tuple(int(root.findtext(f"size/{side}", "0")) for side in ("width", "height"))
        corners = ("xmin", "ymin", "xmax", "ymax")
        rows = [[float(box.findtext(corner, "")) for corner in corners] for box in root.iter("bndbox")]
    except (ParseError, defusedxml.DefusedXmlException, ValueError) as error:
        raise FetchError(f"{path}: expected a VOC annotation, got something else ({error})") from error
    if said != (width, height):
        raise FetchError(f"{path}: expected the size of its photograph, {width}x{height}, got {said[0]}x{said[1]}")
    boxes = Annotations(rows, [0] * len(rows)).boxes - [1, 1, 0, 0]  # type: ignore[arg-type]
    return Annotations(boxes, [0] * len(rows))  # type: ignore[arg-type]


_PLAN = TreesPlan()

SAMPLES: dict[str, Sample] = {
    "trees": Sample(
        name="trees",
        edition=1,
        description="Trees seen from the air: four photographs with every crown boxed, cut into tiles of about 320 px.",
        classes=("tree",),
        licence="MIT",
        package="deepforest",
        version="2.1.0",
        sha256="8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54",
        size_mb=20.6,
        members=(
            *(f"{_PLAN.folder}/{stem}.{ending}" for stem in _PLAN.photographs for ending in ("png", "xml")),
            "deepforest-2.1.0.dist-info/licenses/LICENSE",
        ),
        how=(
            f"Validation ground is the rightmost {_PLAN.right_part} px of the largest photograph; {_PLAN.margin} px "
            "beside it (more than the widest box) belong to neither side; all else is training ground. Training tiles "
            f"overlap by half, validation tiles not at all. Boxes are clipped; those under {_PLAN.min_visible:.0%} "
            "visible are dropped; tiles without boxes stay."
        ),
        build=build_trees,
    )
}
