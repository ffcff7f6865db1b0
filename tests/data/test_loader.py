from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestage.data.augment import augmentation
from onestage.data.dataset import Dataset
from onestage.data.images import decode
from onestage.data.loader import Loader, augmentation_seed, generator
from onestage.data.policy import Sample
from onestage.errors import DataError, RecipeError, UsageError
from onestage.records import Annotations, Batch, ImageInfo

SIZE = (48, 40)
NUMBER = 11


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    infos, annotations = [], {}
    for i in range(NUMBER):
        width, height = (int(v) for v in rng.integers(50, 90, 2))
        image_id: int | str = i if i % 2 else f"picture {i}"
        path = folder / f"{i}.jpg"
        image = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (width, height))
        cv2.imwrite(str(path), image)
        start = rng.random((i % 4, 2)) * (20, 20)  # some images have no boxes
        boxes = np.concatenate([start, start + rng.uniform(8, 28, start.shape)], 1)
        infos.append(ImageInfo(image_id, path, width, height))
        annotations[image_id] = Annotations(
            boxes, rng.integers(0, 3, len(boxes)), extra={"line": np.arange(len(boxes))}
        )
    return Dataset(folder, "made", "train", ("a", "b", "c"), tuple(infos), annotations)


def digest(batches: Iterable[Batch]) -> list[str]:
    hashes = []
    for batch in batches:
        whole = hashlib.sha256(np.ascontiguousarray(batch.images).tobytes())
        for truth in batch.annotations:
            whole.update(truth.boxes.tobytes() + truth.labels.tobytes() + truth.extra["line"].tobytes())
        whole.update(repr((batch.transforms, batch.ids, batch.seeds)).encode())
        hashes.append(whole.hexdigest())
    return hashes


@pytest.mark.parametrize("policy", ["ssd", "mosaic"])
def test_the_same_batches_whoever_makes_them(dataset: Dataset, policy: str) -> None:
    with Loader(dataset, SIZE, policy, batch=3, seed=7, prefetch=0) as plain:
        expected = {epoch: digest(plain.epoch(epoch)) for epoch in (0, 1)}
    assert len(expected[0]) == len(plain) == 4
    assert not set(expected[0]) & set(expected[1])
    for changed in ({"prefetch": 1}, {"prefetch": 3, "cache": True}, {"workers": 1}, {"workers": 2, "cache": True}):
        with Loader(dataset, SIZE, policy, batch=3, seed=7, **changed) as loader:
            assert digest(loader.epoch(0)) == expected[0]
            assert digest(loader.epoch(1, start=2)) == expected[1][2:]
            abandoned = loader.epoch(0)
            next(abandoned)
            abandoned.close()  # type: ignore[attr-defined]
            assert digest(loader.epoch(1)) == expected[1]
    with Loader(dataset, SIZE, policy, batch=3, seed=8, prefetch=0) as other:
        assert not set(digest(other.epoch(0))) & set(expected[0])


def test_an_image_looks_the_same_in_whatever_company(dataset: Dataset) -> None:
    """Augmentation belongs to (seed, epoch, id): not to the batch, the order, or the rest of the set."""
    whole = Loader(dataset, SIZE, "ssd", batch=4, seed=3)
    few = dataset.only({1, "picture 4", 7}, "few")
    part = Loader(few, SIZE, "ssd", batch=2, seed=3, shuffle=False)
    looks = [
        {i: image.tobytes() for batch in loader.epoch(5) for i, image in zip(batch.ids, batch.images, strict=True)}
        for loader in (whole, part)
    ]
    assert len(looks[0]) == NUMBER
    assert looks[1] == {image_id: looks[0][image_id] for image_id in (1, "picture 4", 7)}


def test_seeds_make_the_sample_again(dataset: Dataset) -> None:
    loader = Loader(dataset, SIZE, "ssd", batch=4, seed=3)
    infos = {info.id: info for info in dataset.images}
    for batch in loader.epoch(2):
        for i, image_id in enumerate(batch.ids):
            assert batch.seeds[i] == augmentation_seed(3, 2, image_id)
            rng = generator(batch.seeds[i])
            again = augmentation("ssd")(decode(infos[image_id].path), dataset.annotations[image_id], rng, SIZE)
            np.testing.assert_array_equal(again.image.transpose(2, 0, 1), batch.images[i])
            np.testing.assert_array_equal(again.annotations.boxes, batch.annotations[i].boxes)


def test_seeds_are_the_same_everywhere_and_unlike_each_other() -> None:
    assert augmentation_seed(0, 0, 1) == 7241001922425034793
    keys = [(s, e, i) for s in (0, 1, 10) for e in (0, 1, 10) for i in (0, 1, 10, "0", "1", "10", None)]
    assert len({augmentation_seed(*key) for key in keys}) == len(keys)


def test_order(dataset: Dataset) -> None:
    loader = Loader(dataset, SIZE, batch=4, seed=1)
    orders = [loader.order(epoch) for epoch in range(3)]
    assert all(sorted(order) == list(range(NUMBER)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    straight = Loader(dataset, SIZE, batch=4, shuffle=False)
    ids = [image_id for batch in straight.epoch(3) for image_id in batch.ids]
    assert ids == [info.id for info in dataset.images]


def test_lengths_and_starts(dataset: Dataset) -> None:
    loader = Loader(dataset, SIZE, batch=4)
    assert [len(batch) for batch in loader.epoch(0)] == [4, 4, 3]
    short = Loader(dataset, SIZE, batch=4, drop_last=True)
    assert (len(short), [len(batch) for batch in short.epoch(0)]) == (2, [4, 4])
    assert list(loader.epoch(0, start=3)) == []
    assert list(Loader(dataset, SIZE, batch=40, drop_last=True).epoch(0)) == []
    assert len(Loader(dataset, SIZE, batch=40)) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_channels_last_views(dataset: Dataset, workers: int) -> None:
    torch = pytest.importorskip("torch")
    with Loader(dataset, SIZE, "zoom", batch=4, workers=workers) as loader:
        for batch in loader.epoch(0):
            assert batch.images.dtype == np.uint8
            assert batch.images.shape == (len(batch), 3, 40, 48)
            assert batch.images.transpose(0, 2, 3, 1).flags.c_contiguous
            assert torch.from_numpy(batch.images).is_contiguous(memory_format=torch.channels_last)


def test_none_squashes_or_letterboxes_and_can_be_undone(dataset: Dataset) -> None:
    for fit, truths in (("squash", dataset.annotations), ("letterbox", dataset.annotations)):
        for batch in Loader(dataset, SIZE, "none", batch=4, fit=fit).epoch(0):  # type: ignore[arg-type]
            for i, image_id in enumerate(batch.ids):
                back = batch.transforms[i].to_image(batch.annotations[i].boxes)
                np.testing.assert_allclose(back, truths[image_id].boxes, atol=1e-9)
                assert (batch.transforms[i].pad_x == batch.transforms[i].pad_y == 0) or fit == "letterbox"


def test_one_epoch_can_have_another_policy(dataset: Dataset) -> None:
    with Loader(dataset, SIZE, "mosaic", batch=4, workers=1) as loader:
        plain = digest(loader.epoch(4, policy=augmentation("none")))
        assert plain == digest(Loader(dataset, SIZE, "none", batch=4).epoch(4))
        assert digest(loader.epoch(4)) != plain


def test_cache_is_bounded_and_decodes_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[Path, int] = {}

    def counted(path: Path) -> Any:
        counts[path] = counts.get(path, 0) + 1
        return decode(path)

    monkeypatch.setattr("onestage.data.batches.decode", counted)
    first_three = sum(3 * info.width * info.height for info in dataset.images[:3])
    loader = Loader(dataset, SIZE, "zoom", batch=4, cache=True, cache_bytes=first_three + 10)
    for epoch in range(3):
        list(loader.epoch(epoch))
    assert [counts[info.path] for info in dataset.images] == [1] * 3 + [3] * (NUMBER - 3)


@pytest.mark.parametrize("changed", [{"prefetch": 0}, {"prefetch": 1}, {"workers": 1}])
def test_a_file_that_broke_since_is_named(dataset: Dataset, tmp_path: Path, changed: dict[str, int]) -> None:
    torn = tmp_path / "torn.jpg"
    torn.write_bytes(dataset.images[5].path.read_bytes()[:300])
    images = (*dataset.images[:5], replace(dataset.images[5], path=torn), *dataset.images[6:])
    with (
        Loader(replace(dataset, images=images), SIZE, "ssd", batch=2, **changed) as loader,
        pytest.raises(DataError, match=r"torn\.jpg") as caught,
    ):
        list(loader.epoch(0))
    assert caught.value.exit_code == 3
    assert "Traceback" not in str(caught.value)
    assert caught.value.hint


def test_a_file_of_another_size_is_named(dataset: Dataset) -> None:
    grown = replace(dataset.images[0], width=dataset.images[0].width + 1)
    loader = Loader(replace(dataset, images=(grown, *dataset.images[1:])), SIZE, batch=2)
    with pytest.raises(DataError, match=r"0\.jpg: expected \d+x\d+ pixels as when"):
        list(loader.epoch(0))


@dataclass(frozen=True)
class Deadly:
    """A policy that ends the process it runs in, as running out of memory would."""

    fit: str = "squash"

    def __call__(self, *_arguments: object) -> Sample:
        os._exit(9)


def test_a_process_that_dies_is_told(dataset: Dataset) -> None:
    with Loader(dataset, SIZE, Deadly(), batch=2, workers=1) as loader:  # type: ignore[arg-type]
        with pytest.raises(DataError, match="ended unexpectedly"):
            list(loader.epoch(0))
        assert len(list(loader.epoch(0, policy=augmentation("none")))) == len(loader)  # new processes take over


def test_bad_arguments(dataset: Dataset) -> None:
    for bad in ({"batch": 0}, {"workers": -1}, {"prefetch": -1}):
        with pytest.raises(UsageError):
            Loader(dataset, SIZE, **bad)
    with pytest.raises(UsageError):
        Loader(dataset, (0, 4))
    with pytest.raises(UsageError):
        Loader(dataset, SIZE).epoch(0, start=-1)
    with pytest.raises(RecipeError, match="did you mean 'mosaic'"):
        Loader(dataset, SIZE, "mosiac")
    with pytest.raises(DataError, match="no images"):
        Loader(dataset.only(set(), "val"), SIZE)


def test_global_chance_is_neither_used_nor_moved(dataset: Dataset) -> None:
    torch = pytest.importorskip("torch")
    np.random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[2], torch.get_rng_state()
    with Loader(dataset, SIZE, "ssd", batch=4, workers=1) as loader:
        list(loader.epoch(0))
        list(loader.epoch(1))
    assert np.random.get_state()[2] == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_what_goes_to_processes_can_be_pickled(dataset: Dataset) -> None:
    """So that starting processes afresh ("spawn"), as some systems do, works as well."""
    loader = Loader(dataset, SIZE, "mosaic", batch=4)
    tasks = pickle.loads(pickle.dumps((loader._maker, loader.policy)))
    assert tasks[1] == loader.policy


def test_loading_without_workers_needs_no_torch() -> None:
    code = "import sys, onestage.data.loader, onestage.data.augment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_photographs_give_the_same_with_processes(shared: Path) -> None:
    paths = sorted((shared / "raccoon" / "images").glob("*.jpg"))[:6]
    infos = []
    for path in paths:
        height, width = decode(path).shape[:2]
        infos.append(ImageInfo(path.stem, path, width, height))
    truths = {info.id: Annotations(np.array([[1.0, 1, info.width - 1, info.height - 1]]), [0], extra={"line": [1]})
              for info in infos}  # fmt: skip
    photographs = Dataset(shared, "made", "train", ("raccoon",), tuple(infos), truths)
    expected = digest(Loader(photographs, (300, 300), "ssd", batch=2).epoch(0))
    with Loader(photographs, (300, 300), "ssd", batch=2, workers=2) as loader:
        assert digest(loader.epoch(0)) == expected


# ---- shares of ranks, sizes that change, one batch again


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 13), ranks=st.integers(1, 5), shuffle=st.booleans(), drop_last=st.booleans(),
    seed=st.integers(0, 99), epoch=st.integers(0, 3), policy=st.sampled_from(["none", "ssd", "mosaic"]),
)  # fmt: skip
def test_the_shares_of_the_ranks_are_the_single_loaders_batches(
    dataset: Dataset, batch: int, ranks: int, shuffle: bool, drop_last: bool, seed: int, epoch: int, policy: str
) -> None:
    given_all = {"batch": batch, "seed": seed, "shuffle": shuffle, "drop_last": drop_last, "prefetch": 0}
    alone = Loader(dataset, (24, 20), policy, **given_all)  # type: ignore[arg-type]
    whole = list(alone.epoch(epoch))
    try:
        loaders = [Loader(dataset, (24, 20), policy, rank=r, ranks=ranks, **given_all) for r in range(ranks)]  # type: ignore[arg-type]
    except UsageError:
        assert shuffle
        assert any(len(one) < ranks for one in whole)
        return
    shares = [list(loader.epoch(epoch)) for loader in loaders]
    assert [len(share) for share in shares] == [len(loader) for loader in loaders]
    if shuffle:
        assert {len(share) for share in shares} == {len(whole)}
    for rank, share in enumerate(shares):
        others = [one for one in whole if len(one) > rank]
        assert len(share) == len(others)
        for mine, all_of_it in zip(share, others, strict=True):
            assert list(mine.ids) == list(all_of_it.ids)[rank::ranks]
            np.testing.assert_array_equal(mine.images, all_of_it.images[rank::ranks])
            assert list(mine.seeds) == list(all_of_it.seeds)[rank::ranks]
            for ours, theirs in zip(mine.annotations, all_of_it.annotations[rank::ranks], strict=True):
                np.testing.assert_array_equal(ours.boxes, theirs.boxes)
                np.testing.assert_array_equal(ours.labels, theirs.labels)
    seen = [image_id for share in shares for one in share for image_id in one.ids]
    assert len(seen) == len(set(seen))
    assert set(seen) == {image_id for one in whole for image_id in one.ids}


def test_a_rank_that_would_have_no_image_is_refused_before_it_waits(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="2 images cannot be shared among 3 processes") as caught:
        Loader(dataset, SIZE, batch=2, ranks=3, drop_last=True)
    assert "batch=3 or more" in str(caught.value)
    with pytest.raises(UsageError, match="1 images cannot") as caught:
        Loader(dataset, SIZE, batch=5, ranks=2)  # 11 = 5 + 5 + 1
    assert "drop_last" in str(caught.value)
    assert len(Loader(dataset, SIZE, batch=5, ranks=2, drop_last=True)) == 2
    for rank, ranks in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(UsageError, match="expected a rank"):
            Loader(dataset, SIZE, batch=5, rank=rank, ranks=ranks)
    last = Loader(dataset, SIZE, batch=5, rank=1, ranks=2, shuffle=False)
    assert [len(one) for one in last.epoch(0)] == [2, 2]
    assert [len(one) for one in last.epoch(0, start=1)] == [2]
    assert list(last.epoch(0, start=2)) == []


def growing(number: int) -> tuple[int, int]:
    return (24, 20) if number % 2 else (32 + 8 * number, 16)


@pytest.mark.parametrize("changed", [{"prefetch": 0}, {"prefetch": 2}, {"workers": 1}, {"workers": 2}])
def test_sizes_change_from_batch_to_batch_whoever_makes_them(dataset: Dataset, changed: dict[str, int]) -> None:
    single = [
        next(iter(Loader(dataset, growing(n), "mosaic", batch=3, seed=7, prefetch=0).epoch(1, start=n)))
        for n in range(4)
    ]
    with Loader(dataset, SIZE, "mosaic", batch=3, seed=7, **changed) as loader:  # type: ignore[arg-type]
        batches = list(loader.epoch(1, size_of=growing))
        assert [(b.images.shape[3], b.images.shape[2]) for b in batches] == [growing(n) for n in range(4)]
        assert digest(batches) == digest(single)
        assert digest(loader.epoch(1, start=2, size_of=growing)) == digest(single[2:])
        plain = digest(loader.epoch(1))
        assert plain == digest(Loader(dataset, SIZE, "mosaic", batch=3, seed=7).epoch(1))
        with pytest.raises(UsageError, match="at least 1x1, got 0x4"):
            loader.epoch(1, size_of=lambda _number: (0, 4))


@pytest.mark.parametrize("ranks", [1, 2])
def test_one_batch_again_is_bit_for_bit_that_of_the_epoch(dataset: Dataset, ranks: int) -> None:
    with Loader(dataset, SIZE, "mosaic", batch=4, drop_last=True, seed=5, workers=1, ranks=ranks) as loader:
        calmer = augmentation("ssd")
        under_way = loader.epoch(3)
        first = next(under_way)
        assert digest([loader.batch_of(3, n) for n in range(2)]) == digest([first, *under_way])
        changed = digest(loader.epoch(2, policy=calmer, size_of=growing))
        assert digest([loader.batch_of(2, n, calmer, growing(n)) for n in range(2)]) == changed
        for number in (-1, 2):
            with pytest.raises(UsageError, match=f"a batch from 0 to 1, got {number}"):
                loader.batch_of(0, number)


def test_native_batches_are_single_images_at_their_own_pixels(dataset: Dataset) -> None:
    asked: dict[str, Any] = {"batch": 4, "shuffle": False, "fit": "native"}
    with Loader(dataset, SIZE, "none", **asked) as loader:
        batches = list(loader.epoch(0))
        assert len(loader) == len(batches) == NUMBER
    for info, batch in zip(dataset.images, batches, strict=True):
        assert batch.ids == (info.id,)
        np.testing.assert_array_equal(batch.images[0].transpose(1, 2, 0), decode(info.path))
        kept = dataset.annotations[info.id]
        np.testing.assert_array_equal(batch.annotations[0].boxes, np.minimum(kept.boxes, [info.width, info.height] * 2))
    with Loader(dataset, SIZE, "none", scale=2, **asked) as loader:
        doubled = loader.batch_of(0, 1)
    info = dataset.images[1]
    assert doubled.images.shape[2:] == (2 * info.height, 2 * info.width)
    np.testing.assert_allclose(doubled.annotations[0].boxes, 2 * batches[1].annotations[0].boxes)


def test_native_images_are_shared_among_processes(dataset: Dataset) -> None:
    shares = []
    for rank in range(3):
        with Loader(dataset, SIZE, "none", batch=1, shuffle=False, fit="native", rank=rank, ranks=3) as loader:
            shares.append([batch.ids[0] for batch in loader.epoch(0)])
            assert len(loader) == len(shares[-1])
    assert [len(share) for share in shares] == [4, 4, 3]
    assert {i for share in shares for i in share} == {info.id for info in dataset.images}


@pytest.mark.parametrize("keys", [{"shuffle": True}, {"policy": "zoom", "shuffle": False}])
def test_native_is_for_judging_alone(dataset: Dataset, keys: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="fit='native' is for judging"):
        Loader(dataset, SIZE, fit="native", **keys)
