"""Sizes drawn from seed and step: even, in proportion, the same for everyone; what is asked in vain is said."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.models import build
from onestage.training.multiscale import Sizes, problems
from onestage.training.recipe import MultiScale, Recipe


def test_darknets_ten_sizes() -> None:
    # darknet: random=1 gives (10 … 19) * 32 = 320 … 608 at 416
    sizes = Sizes((416, 416), 0.75, 1.5)
    assert sizes.possible == tuple((32 * k, 32 * k) for k in range(10, 20))
    assert Sizes((416, 416), 320 / 416, 608 / 416).possible == sizes.possible
    assert Sizes((544, 544), 0.58, 1.12).possible == sizes.possible  # as docs/training.md tells
    assert Sizes((608, 608), 0.52, 1.0).possible == sizes.possible


def test_one_size_is_the_base_whatever_the_step() -> None:
    sizes = Sizes((300, 200))
    assert not sizes.changing
    assert {sizes.at(step) for step in range(100)} == {(300, 200)}


def test_a_size_stays_for_so_many_steps_and_all_come_alike() -> None:
    sizes = Sizes((320, 320), 0.5, 1.5, every=10, seed=3)
    assert len(sizes.possible) == 11
    drawn = [sizes.at(step) for step in range(22000)]
    for window in range(0, 22000, 10):
        assert len(set(drawn[window : window + 10])) == 1
    counts = Counter(drawn[::10])
    assert set(counts) == set(sizes.possible)
    expected = 2200 / 11
    chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
    assert chi2 < 29.6  # 10 degrees of freedom: exceeded by chance once in 1000


def test_sizes_are_the_same_for_everyone() -> None:
    sizes = Sizes((320, 320), 0.5, 1.5, every=4, seed=3)
    golden = [sizes.at(step)[0] for step in range(0, 40, 4)]
    assert golden == [
        320,
        352,
        224,
        448,
        320,
        416,
        320,
        320,
        192,
        224,
    ]  # drawn once; a change would make resumed runs others
    assert golden == [Sizes((320, 320), 0.5, 1.5, every=1, seed=3).at(k)[0] for k in range(10)]
    assert golden != [Sizes((320, 320), 0.5, 1.5, every=4, seed=4).at(step)[0] for step in range(0, 40, 4)]
    backwards = {step: sizes.at(step) for step in reversed(range(40))}
    assert [backwards[step][0] for step in range(0, 40, 4)] == golden


@settings(max_examples=200, deadline=None)
@given(
    st.integers(32, 700), st.integers(32, 700), st.floats(0.3, 1.0), st.floats(1.0, 2.5),
    st.sampled_from([8, 16, 32, 64]), st.integers(0, 10**6),
)  # fmt: skip
def test_every_size_keeps_range_multiples_and_proportions(
    width: int, height: int, low: float, high: float, step: int, at: int
) -> None:
    sizes = Sizes((width, height), low, high, step, every=7, seed=1)
    if not sizes.changing:
        return
    assert list(sizes.possible) == sorted(set(sizes.possible))
    for w, h in sizes.possible:
        assert w % step == h % step == 0
        assert low * width - 1e-6 <= w <= high * width + 1e-6
        assert low * height - 1e-6 <= h <= high * height + 1e-6
        longer, shorter, ratio = (w, h, height / width) if width >= height else (h, w, width / height)
        assert abs(shorter - longer * ratio) <= step / 2 + 1e-6
    if sizes.possible:
        assert sizes.at(at) in sizes.possible


def test_recipe() -> None:
    recipe = Recipe(data="x", seed=9, multiscale=MultiScale(low=0.5, high=1.25, step=16, every=3))
    assert Sizes.of(recipe, (128, 64)) == Sizes((128, 64), 0.5, 1.25, 16, 3, 9)
    assert not Sizes.of(Recipe(data="x"), (128, 64)).changing


def test_problems_are_said() -> None:
    light, fixed = build("ssd-lite0", 2, size=(64, 64)), build("ssd300", 2)
    assert problems(MultiScale(), fixed) == []
    assert problems(MultiScale(low=0.5, high=1.5), light) == []
    assert light.size == (64, 64)
    (said,) = problems(MultiScale(low=0.5), fixed)
    assert said == "multiscale: low=0.5, high=1 asks ssd300 for other input sizes, but it has one input size, 300x300"
    assert fixed.size == (300, 300)
    (said,) = problems(MultiScale(low=0.9, high=1.2), light)
    assert "leave one size, 64x64" in said
    (said,) = problems(MultiScale(low=0.95, step=48, high=1.2), light)
    assert "in multiples of 48 pixels leave no size" in said
    (said,) = problems(MultiScale(low=0.25, step=16), light)
    assert said == "multiscale.low: 0.25 of 64x64 gives sides below 32 pixels; expected 0.5 or more"
    both = problems(MultiScale(low=0.6, high=1.0, step=30), build("ssd-lite0", 2, size=(40, 64)))
    assert [text.partition(":")[0] for text in both] == ["multiscale.low", "multiscale"]
