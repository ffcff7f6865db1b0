"""Specs that name several sets: any formats, sets by name, ratios, what is refused, what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from folders_on_disk import coco, picture, voc, write
from test_formats_fddb import with_images

from onestage.data.dataset import Part
from onestage.data.opening import Opened, open_dataset
from onestage.data.spec import read_spec
from onestage.errors import DataError


def faces(path: Path, count: int, *, images: str = "images", number: int = 1) -> Path:
    """A face list with its images beside it."""
    names = [f"{path.stem}{i}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        picture(path.parent / images / name, seed=sum(path.stem.encode()) + 1000 * i)
    return write(path, "".join(f"{name} 1 5 6 20 10 {number}\n" for name in names))


def wider(root: Path, **sets: int) -> Path:
    for split, count in sets.items():
        lines = [f"e/{split}{i}.jpg\n1\n5 6 20 10 0 0 0 0 0 0\n" for i in range(count)]
        write(root / f"wider_face_split/wider_face_{split}_bbx_gt.txt", "".join(lines))
        for i in range(count):
            picture(root / f"WIDER_{split}/images/e/{split}{i}.jpg", seed=7000 + len(split) * 100 + i)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    wider(tmp_path / "WIDER", train=4, val=2)
    faces(tmp_path / "aflw.txt", 6)
    return tmp_path


def opened(root: Path, text: str, **more: object) -> Opened:
    return open_dataset(write(root / "mix.yaml", text), **more)  # type: ignore[arg-type]


def refusal(root: Path, text: str, **more: object) -> str:
    with pytest.raises(DataError) as refused:
        opened(root, text, **more)
    return str(refused.value)


VAL = "val: {data: WIDER, split: val}\nclasses: [face]\n"
RATIOS = "train:\n- {data: WIDER, split: train, ratio: 2}\n- {data: aflw.txt, ratio: 1}\n"


def test_sets_of_two_formats_by_ratio(root: Path) -> None:
    found = opened(root, RATIOS + VAL)
    assert found.train.parts == (Part("WIDER, train", 4, 2.0), Part("aflw.txt", 6, 1.0))
    assert [image.id for image in found.train.images][3:6] == ["e/train3", "aflw0", "aflw1"]
    assert [image.id for image in found.val.images] == ["e/val0", "e/val1"]
    assert (found.classes, found.format, found.split_made) == (("face",), "widerface+facelist", None)
    assert found.train.root == root
    assert (found.train.boxes, found.train.boxes_read, found.train.images_read) == (10, 10, 10)
    assert "an epoch takes 7 images of WIDER, train (it has 4) and 3 images of aflw.txt (it has 6)" in found.described
    assert "set train + face list aflw.txt" in found.described
    assert not found.findings


def test_without_ratios_an_epoch_is_all_of_all_sets(root: Path) -> None:
    found = opened(root, "train: [WIDER/WIDER_train, aflw.txt]\nval: {data: WIDER, split: val}\n")
    assert found.train.parts == (Part("WIDER/WIDER_train", 4), Part("aflw.txt", 6))
    assert not found.train.mixed
    assert "an epoch takes" not in found.described
    plain = opened(root, "train: [WIDER/WIDER_train, aflw.txt]\nval: WIDER/WIDER_val\n")
    assert len(plain.train) == 10


def test_without_val_a_part_of_every_set_may_be_put_aside(root: Path) -> None:
    found = opened(root, RATIOS.replace("split: train, ", "split: all, "))
    assert found.split_made is not None
    assert len(found.train) + len(found.val) == 12
    assert sum(part.images for part in found.train.parts) == len(found.train)
    assert [part.ratio for part in found.train.parts] == [2.0, 1.0]


def test_other_formats_folds_and_sets_by_role(root: Path) -> None:
    with_images(root / "fddb")
    voc(root / "voc", {name: [("face", 2, 2, 30, 30)] for name in "abc"}, {"trainval": "ab", "test": "c"})
    picture(root / "c.jpg")
    row = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    coco(root / "c.json", [{"id": 1, "file_name": "c.jpg"}], [row], [{"id": 1, "name": "face"}])
    text = (
        "train:\n- {data: fddb, split: fold-01, ratio: 1}\n- {data: voc, split: trainval, ratio: 0.5}\n"
        "- {data: c.json, ratio: 1e-3}\n- {data: aflw.txt, split: aflw, ratio: 1}\n"
        "val:\n- {data: WIDER, split: val}\n- {data: voc, split: test}\n"
    )
    found = opened(root, text, allow_loss=True)
    assert [part.images for part in found.train.parts] == [6, 2, 1, 6]
    assert [image.id for image in found.val.images] == ["e/val0", "e/val1", "c"]
    assert found.classes == ("face",)


def test_a_folder_without_a_named_set_gives_all_and_says_so(root: Path) -> None:
    found = opened(root, "train: {data: WIDER}\nval: aflw.txt\n")
    assert len(found.train) == 6
    assert "its sets train, val together" in found.described


def test_ids_stay_unique(tmp_path: Path) -> None:
    for name in ("one", "two"):
        picture(tmp_path / name / "a.jpg", seed=len(name) + ord(name[0]))
        write(tmp_path / name / f"{name}.txt", "a.jpg 1 5 6 20 10 1\n")
    faces(tmp_path / "v.txt", 1)
    found = opened(tmp_path, "train:\n- {data: one/one.txt, ratio: 1}\n- {data: two/two.txt, ratio: 1}\nval: v.txt\n")
    assert [image.id for image in found.train.images] == ["a", "two/a"]


def test_a_set_named_twice_counts_once(root: Path) -> None:
    found = opened(root, RATIOS + "- {data: ./aflw.txt, ratio: 3}\n" + VAL)
    assert found.train.parts == (Part("WIDER, train", 4, 2.0), Part("aflw.txt", 6, 4.0))
    assert [(one.code, one.what) for one in found.findings] == [
        ("set-named-twice", "train names ./aflw.txt twice; it counts once, with ratio 4")
    ]


def test_images_of_two_sets_are_taken_once(root: Path) -> None:
    lines = (root / "aflw.txt").read_text().splitlines()
    write(root / "more.txt", "\n".join(lines[4:]) + "\n")
    faces(root / "new.txt", 1)
    write(root / "more.txt", "\n".join([*lines[4:], (root / "new.txt").read_text()]))
    found = opened(root, "train:\n- {data: aflw.txt, ratio: 1}\n- {data: more.txt, ratio: 1}\n" + VAL)
    assert [part.images for part in found.train.parts] == [6, 1]
    assert [one.what for one in found.findings if one.code == "shared-images"] == [
        "2 of the 3 images of more.txt stand in a set before it too"
    ]
    write(root / "more.txt", "\n".join(lines[4:]) + "\n")
    text = "train:\n- {data: aflw.txt, ratio: 1}\n- {data: more.txt, ratio: 1}\n" + VAL
    assert "more.txt has no image that the sets before it have not" in refusal(root, text)


def test_images_of_train_in_val_are_told(root: Path) -> None:
    found = opened(root, RATIOS + "val: aflw.txt\n")
    assert [one.code for one in found.findings] == ["leak"]


def test_losses_are_refused_set_by_set(root: Path) -> None:
    with (root / "aflw.txt").open("a") as file:
        file.write("gone.jpg 1 5 6 20 10 1\n")
    for i in range(60):  # one of 71 images would pass, one of 7 does not
        picture(root / f"images/big{i}.jpg", seed=9000 + i)
    write(root / "big.txt", "".join(f"big{i}.jpg 1 5 6 20 10 1\n" for i in range(60)))
    text = RATIOS + "- {data: big.txt, ratio: 1}\n" + VAL
    assert "1 of 7 images cannot be used" in refusal(root, text)
    assert len(opened(root, text, allow_loss=True).train) == 70


# ---- classes


def test_classes_that_differ_are_joined_and_told(root: Path) -> None:
    voc(root / "voc", {"a": [("ant", 2, 2, 30, 30)], "b": [("ant", 2, 2, 30, 30)]})
    found = opened(root, "train: [voc, aflw.txt]\nval: {data: WIDER, split: val}\n")
    assert found.classes == ("ant", "face")
    assert found.train.annotations["aflw0"].labels.tolist() == [1]
    assert "classes-differ" in [one.code for one in found.findings]


def test_a_number_that_means_two_classes_is_refused(root: Path) -> None:
    for name, number in (("zero", 0), ("one", 1)):
        faces(root / f"{name}.txt", 2, number=number)
    write(root / "zero.txt", (root / "zero.txt").read_text() + "aflw0.jpg 1 5 6 20 10 1\n")
    text = "train: [zero.txt, one.txt]\nval: zero.txt\nclasses: [hat, mask]\n"
    assert "class number 1 is 'mask' in one list and 'hat' in another" in refusal(root, text)


# ---- what is refused


@pytest.mark.parametrize(("old", "new", "said"), [
    ("ratio: 2", "ratio: 0", "train, set 1: ratio: expected a number above 0, got 0"),
    ("ratio: 2", "ratio: -1", "got -1"),
    ("ratio: 2", "ratio: .nan", "got nan"),
    ("ratio: 2", "ratio: .inf", "got inf"),
    ("ratio: 2", "ratio: true", "got True"),
    ("ratio: 2", "ratio: '2:1'", "got '2:1'"),
    ("ratio: 2", "ratio: null", "got None"),
    ("ratio: 2", "raito: 2", "train, set 1: raito: no such key (did you mean 'ratio'?)"),
    (", ratio: 2", "", "train: ratio: WIDER, train has none; give every set one, or none at all"),
    ("data: WIDER, split: train", "data: WIDRE", "WIDRE does not exist beside mix.yaml (did you mean 'WIDER'?)"),
    ("data: aflw.txt", "dta: aflw.txt", "train, set 2: dta: no such key (did you mean 'data'?)"),
    ("data: aflw.txt", "data: 7", "train, set 2: data: expected a path, got 7"),
    ("split: train", "split: trian", "no set 'trian' (did you mean 'train'?); there are: train, val, all"),
    ("split: train", "split: [train]", "split: expected the name of a set"),
    ("split: val}", "split: val, ratio: 2}", "val: ratio: val is always judged whole; leave it out"),
    ("classes:", "clases:", "clases: no such key (did you mean 'classes'?)"),
    ("classes: [face]", "classes: face", "classes: expected a list of names, got 'face'"),
    ("classes: [face]", "names: [face]", "names, nc and path belong to YOLO's data.yaml"),
    ("val:", "valid:", "valid: no such key (did you mean 'val'?)"),
    ("aflw.txt", "mix.yaml", "train, set 2: mix.yaml is a split spec itself"),
    ("aflw.txt", "a" * 300, "does not exist"),
])  # fmt: skip
def test_what_does_not_add_up_is_refused_in_words(root: Path, old: str, new: str, said: str) -> None:
    text = (RATIOS + VAL).replace(old, new, 1)
    assert text != RATIOS + VAL
    assert said in refusal(root, text)


def test_all_problems_are_told_at_once(root: Path) -> None:
    said = refusal(root, "train:\n- {data: WIDRE, ratio: -1}\n- {dat: aflw.txt, ratio: 1}\nval: nowhere\nclass: [a]\n")
    assert said.count("\n  - ") == 6  # no WIDRE, -1, dat, no data, nowhere, class


@pytest.mark.parametrize("text", ["train:\nval: {data: aflw.txt}\n", "train: []\nval: {data: aflw.txt}\n"])
def test_a_spec_without_training_sets(root: Path, text: str) -> None:
    assert "train: names no set" in refusal(root, text)


def test_a_set_without_images_cannot_be_mixed_in(root: Path) -> None:
    write(root / "gone.txt", "gone.jpg 1 5 6 20 10 1\n")
    text = RATIOS + "- {data: gone.txt, ratio: 1}\n" + VAL
    assert "gone.txt has no usable image" in refusal(root, text, allow_loss=True)


def test_lists_of_image_folders_stay_yolo_s(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"images/{name}/{name}.jpg")
        write(tmp_path / f"labels/{name}/{name}.txt", "0 0.5 0.5 0.2 0.2\n")
    path = write(tmp_path / "data.yaml", "train: [images/a, images/b]\nval: images/b\n")
    assert read_spec(path) is None
    assert open_dataset(path).format == "yolo"
