"""Stratification against its definition, and twins that must not be torn apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import picture
from hypothesis import given
from hypothesis import strategies as st

from onestage.data.dataset import Dataset
from onestage.data.split import divided, leaks, same_bytes, stratified
from onestage.errors import DataError
from onestage.records import Annotations, ImageInfo


def test_every_label_keeps_its_share() -> None:
    rng = np.random.default_rng(5)
    present = rng.random((500, 6)) < np.array([0.9, 0.5, 0.2, 0.1, 0.04, 0.02])
    val = stratified(present, 0.2, seed=3)
    assert abs(val.mean() - 0.2) < 0.02
    share = present[val].sum(axis=0) / present.sum(axis=0)
    np.testing.assert_allclose(share, 0.2, atol=0.06)
    at_random = present[rng.permutation(500)[:100]].sum(axis=0) / present.sum(axis=0)
    assert np.abs(share - 0.2).max() < np.abs(at_random - 0.2).max()


def test_ten_of_each_of_two_exclusive_labels() -> None:
    present = np.zeros((20, 2), bool)
    present[:10, 0] = present[10:, 1] = True
    val = stratified(present, 0.2, seed=0)
    assert present[val].sum(axis=0).tolist() == [2, 2]


def test_images_without_objects_are_shared_out_too() -> None:
    present = np.zeros((20, 1), bool)
    present[:10] = True
    val = stratified(present, 0.2)
    assert (val[:10].sum(), val[10:].sum()) == (2, 2)


def test_a_label_of_one_image_is_left_to_training() -> None:
    present = np.zeros((10, 2), bool)
    present[4, 1] = True
    assert not stratified(present, 0.2)[4]


def test_seed_decides_and_repeats() -> None:
    present = np.random.default_rng(0).random((60, 3)) < 0.4
    assert (stratified(present, 0.2, 1) == stratified(present, 0.2, 1)).all()
    assert (stratified(present, 0.2, 1) != stratified(present, 0.2, 2)).any()


@given(st.integers(0, 30), st.integers(0, 4), st.floats(0.01, 0.99), st.integers(0, 5))
def test_both_sides_have_something(n: int, labels: int, fraction: float, seed: int) -> None:
    present = np.random.default_rng(seed).random((n, labels)) < 0.3
    val = stratified(present, fraction, seed)
    assert val.shape == (n,)
    if n >= 2:
        assert 1 <= val.sum() <= n - 1


def dataset(root: Path, n: int, split: str = "all", seed: int | None = None) -> Dataset:
    images = tuple(
        ImageInfo(f"{split}{i}", picture(root / f"{split}{i}.png", seed=i if seed is None else seed), 60, 40)
        for i in range(n)
    )
    return Dataset(
        root, "voc", split, ("cat",), images, {image.id: Annotations([[1, 2, 3, 4]], [0]) for image in images}
    )


def test_divided_shares_every_image_out_once(tmp_path: Path) -> None:
    whole = dataset(tmp_path, 10)
    train, val = divided(whole, 0.2, 0)
    assert {image.id for image in train.images} | {image.id for image in val.images} == {
        image.id for image in whole.images
    }
    assert (len(train), len(val), train.split, val.split) == (8, 2, "train", "val")


def test_equal_files_stay_on_one_side(tmp_path: Path) -> None:
    whole = dataset(tmp_path, 12)
    for i in range(6):
        (tmp_path / f"all{i + 6}.png").write_bytes((tmp_path / f"all{i}.png").read_bytes())
    train, val = divided(whole, 0.3, 0)
    assert leaks(train, val) is None
    assert len(val) % 2 == 0


@pytest.mark.parametrize(("n", "seed"), [(0, None), (1, None), (4, 9)])
def test_too_few_different_images(tmp_path: Path, n: int, seed: int | None) -> None:
    with pytest.raises(DataError, match="cannot be divided"):
        divided(dataset(tmp_path, n, seed=seed), 0.2, 0)


def test_leaks_are_found_by_content(tmp_path: Path) -> None:
    train, val = dataset(tmp_path, 3, "train"), dataset(tmp_path, 3, "val")
    (tmp_path / "val2.png").write_bytes((tmp_path / "train1.png").read_bytes()[:-1] + b"x")  # same size, other content
    (tmp_path / "val0.png").write_bytes((tmp_path / "train1.png").read_bytes())
    (tmp_path / "val1.png").write_bytes(b"other")
    (tmp_path / "train0.png").write_bytes(b"unlike")
    (tmp_path / "train2.png").write_bytes(b"unlike it")
    found = leaks(train, val)
    assert found is not None
    assert found.evidence["images"] == ["val0.png = train1.png"]
    assert "1 of 3 val images" in found.what


def test_same_bytes_of_nothing() -> None:
    assert same_bytes([]) == []


def test_regions_to_ignore_are_no_objects_of_a_class(tmp_path: Path) -> None:
    """A region carries a label that says nothing: it must not count as its class when sets are divided."""
    images = [ImageInfo(str(k), tmp_path / f"{k}.jpg", 10, 10) for k in range(20)]
    for image in images:
        image.path.write_bytes(str(image.id).encode())
    region = Annotations(np.array([[0, 0, 5, 5.0]]), [0], ignore=[True], extra={"region": [True]})  # type: ignore[arg-type]
    object_of_0 = Annotations(np.array([[0, 0, 5, 5.0]]), [0])  # type: ignore[arg-type]
    truths = {image.id: object_of_0 if int(str(image.id)) < 4 else region for image in images}
    whole = Dataset(tmp_path, "voc", "all", ("cat",), tuple(images), truths)
    _, val = divided(whole, 0.25, 0)
    assert sum(truths[image.id] is object_of_0 for image in val.images) == 1
