"""Orders of epochs: plain sets, sets mixed by ratio, the same for workers, ranks and after a resume."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from folders_on_disk import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.dataset import Dataset, Part
from onestage.data.loader import Loader
from onestage.data.order import any_index, drawn, epoch_order, most_often, turns
from onestage.records import Annotations, ImageInfo

RATIOS = st.floats(1e-3, 1e3)


def mixed(*parts: tuple[int, float | None], folder: Path | None = None) -> Dataset:
    """Images 0 … n-1, in parts of (images, ratio)."""
    total = sum(images for images, _ in parts)
    infos = tuple(ImageInfo(i, (folder or Path()) / f"{i}.png", 20, 16) for i in range(total))
    truths = {i: Annotations([[2.0, 2, 12, 12]], [0]) for i in range(total)}
    named = tuple(Part(f"set {i}", images, ratio) for i, (images, ratio) in enumerate(parts))
    return Dataset(Path(), "made", "train", ("face",), infos, truths, parts=named)


@pytest.mark.parametrize(("parts", "expected"), [
    ([(10, 1.0), (10, 1.0)], [10, 10]),
    ([(12880, 2.0), (21124, 1.0)], [22669, 11335]),  # WIDER FACE and AFLW: 34,004 images, two thirds and one
    ([(110, 2.0), (87, 1.0)], [131, 66]),
    ([(10, None), (30, None)], [10, 30]),
    ([(5, 1e-300), (5, 1e300)], [1, 9]),
    ([(1, 1.0), (1, 1.0), (1, 1e-9)], [1, 1, 1]),
    ([(0, 5.0), (4, 1.0)], [0, 4]),
    ([(3, 0.1), (3, 0.2)], [2, 4]),
])  # fmt: skip
def test_an_epoch_has_as_many_images_as_there_are_shared_out_by_ratio(parts: list, expected: list[int]) -> None:
    assert drawn([Part("a set", images, ratio) for images, ratio in parts]) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), RATIOS), min_size=1, max_size=4), st.integers(0, 99))
def test_each_set_gives_its_share_and_goes_round_evenly(parts: list, seed: int) -> None:
    dataset = mixed(*parts)
    counts = drawn(dataset.parts)
    assert sum(counts) == len(dataset)
    exact = np.array([ratio for _, ratio in parts]) / sum(ratio for _, ratio in parts) * len(dataset)
    if exact.min() >= 1:
        assert np.abs(np.array(counts) - exact).max() < 1
    seen: Counter[int] = Counter()
    allowed = most_often(dataset)
    for epoch in range(4):
        order = epoch_order(dataset, seed, epoch)
        seen.update(order)
        assert all(times <= allowed.get(index, 1) for index, times in Counter(order).items())
        start = 0
        for part, count in zip(dataset.parts, counts, strict=True):
            inside = range(start, start + part.images)
            assert sum(index in inside for index in order) == count
            times = [seen[index] for index in inside]
            assert max(times) - min(times) <= 1  # drawn without replacement, round after round
            start += part.images


def test_a_plain_set_keeps_the_order_it_always_had() -> None:
    assert epoch_order(mixed((8, None)), 1, 0) == epoch_order(replace(mixed((8, None)), parts=()), 1, 0)
    assert Loader(mixed((8, None)), (8, 8), seed=1).order(0) == [
        0,
        4,
        1,
        2,
        3,
        6,
        7,
        5,
    ]  # as before there were mixtures


def test_orders_differ_by_seed_and_epoch_alone() -> None:
    dataset = mixed((6, 3.0), (18, 1.0))
    orders = [epoch_order(dataset, seed, epoch) for seed in (0, 1) for epoch in range(5)]
    assert orders == [epoch_order(dataset, seed, epoch) for seed in (0, 1) for epoch in range(5)]
    assert len(set(map(tuple, orders))) == len(orders)
    assert epoch_order(dataset, 0, 10**6) != epoch_order(dataset, 0, 10**6 + 1)


def test_turns() -> None:
    assert turns([3, 1, 3, 3, 1]) == [0, 0, 1, 2, 1]


def test_pictures_for_mosaics_are_drawn_by_ratio() -> None:
    dataset, rng = mixed((10, 3.0), (30, 1.0)), np.random.default_rng(0)
    first = sum(any_index(dataset, rng) < 10 for _ in range(4000))
    assert 2850 < first < 3150
    plain = replace(dataset, parts=())
    assert any_index(plain, np.random.default_rng(5)) == int(np.random.default_rng(5).integers(40))


def test_parts_follow_a_split_and_change_the_fingerprint() -> None:
    dataset = mixed((4, 2.0), (6, 1.0))
    part = dataset.only({0, 1, 5, 6, 7}, "train")
    assert [(one.images, one.ratio) for one in part.parts] == [(2, 2.0), (3, 1.0)]
    assert dataset.fingerprint() != mixed((4, 1.0), (6, 1.0)).fingerprint()
    assert mixed((4, None), (6, None)).fingerprint() == replace(dataset, parts=()).fingerprint()
    with pytest.raises(ValueError, match="do not add up"):
        replace(dataset, parts=dataset.parts[:1])


# ---- through the loader


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three images that come often and nine that seldom do."""
    folder = tmp_path_factory.mktemp("mixed")
    for i in range(12):
        picture(folder / f"{i}.png", 20, 16, seed=i)
    return mixed((3, 3.0), (9, 1.0), folder=folder)


def looks(loader: Loader, epoch: int, start: int = 0) -> list:
    with loader:
        return [(batch.ids, batch.seeds, batch.images.tobytes()) for batch in loader.epoch(epoch, start=start)]


def test_batches_are_the_same_whoever_makes_them_and_wherever_one_begins(dataset: Dataset) -> None:
    def loader(**more: int) -> Loader:
        return Loader(dataset, (32, 32), "ssd", batch=5, seed=3, **more)

    alone = [looks(loader(prefetch=0), epoch) for epoch in range(3)]
    assert [looks(loader(workers=1), epoch) for epoch in range(2)] == alone[:2]
    for epoch in range(3):
        assert looks(loader(prefetch=2), epoch, start=1) == alone[epoch][1:]  # a run taken up within an epoch
        shares = [looks(loader(rank=rank, ranks=2), epoch) for rank in (0, 1)]
        for whole, even, odd in zip(alone[epoch], *shares, strict=True):
            assert (even[0], odd[0]) == (whole[0][::2], whole[0][1::2])
            assert (even[1], odd[1]) == (whole[1][::2], whole[1][1::2])
    with loader() as again:
        batch = again.batch_of(2, 1)
        assert (batch.ids, batch.seeds, batch.images.tobytes()) == alone[2][1]


def test_an_image_that_comes_again_looks_otherwise(dataset: Dataset) -> None:
    with Loader(dataset, (32, 32), "ssd", batch=12, prefetch=0) as loader:
        (batch,) = loader.epoch(0)
    assert Counter(image_id in (0, 1, 2) for image_id in batch.ids) == {True: 9, False: 3}
    assert len(set(batch.seeds)) == 12
    same = [i for i, image_id in enumerate(batch.ids) if image_id == 0]
    assert len(same) == 3
    assert not np.array_equal(batch.images[same[0]], batch.images[same[1]])


def test_judging_takes_each_image_once(dataset: Dataset) -> None:
    with Loader(dataset, (32, 32), batch=12, shuffle=False, prefetch=0) as loader:
        (batch,) = loader.epoch(0)
    assert list(batch.ids) == list(range(12))


def test_sets_of_equal_size_go_round_in_orders_of_their_own() -> None:
    order = epoch_order(mixed((20, 1.0), (20, 1.0), (20, 4.0)), 0, 0)
    first, second = ({index - start for index in order if start <= index < start + 20} for start in (0, 20))
    assert (len(first), len(second)) == (10, 10)
    assert first != second
