from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage.data.augment import POLICIES, Mosaic, augmentation, with_fit
from onestage.data.policy import Policy
from onestage.data.views import joined, moved
from onestage.errors import RecipeError
from onestage.records import Annotations, ImageTransform

CALM = {"probability": 0.0}
INK = [(255, 0, 0), (0, 255, 0), (255, 255, 0), (255, 0, 255)]


def painted(width: int, height: int, box: tuple[int, int, int, int], label: int = 0) -> tuple[np.ndarray, Annotations]:
    """A blue picture with one rectangle in the ink of its label."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = (0, 0, 255)
    x0, y0, x1, y1 = box
    image[y0:y1, x0:x1] = INK[label]
    return image, Annotations(np.array([box], float), [label], difficult=[True], extra={"line": np.array([label + 7])})


def extents(image: np.ndarray, label: int) -> np.ndarray | None:
    """The rectangle's edges as painted: pixels nearer to its ink than to anything else about."""
    others = np.array([*INK, (0, 0, 255), (123, 117, 104)])
    nearest = np.abs(image[:, :, None].astype(int) - others).sum(3).argmin(2)
    rows, columns = np.nonzero(nearest == label)
    if not len(rows):
        return None
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def calm(name: str, **changed: Any) -> Policy:
    if name == "none":
        return augmentation("none", **changed)
    if name == "mosaic":
        return augmentation("mosaic", probability=1.0, zoom={"photometric": CALM, **changed})
    return augmentation(name, photometric=CALM, **changed)


@pytest.mark.parametrize(
    ("name", "changed"),
    [("none", {}), ("none", {"fit": "letterbox"}), ("ssd", {}), ("ssd", {"fit": "letterbox"}), ("zoom", {}),
     ("zoom", {"fit": "letterbox", "upside_down": 0.5, "transpose": 0.5}), ("zoom", {"scale": (0.3, 3.0)}),
     ("faceboxes", {}), ("faceboxes", {"entire": 0.5, "fit": "letterbox"})],
)  # fmt: skip
def test_a_painted_rectangle_moves_with_its_box(name: str, changed: dict[str, Any]) -> None:
    policy, seen = calm(name, **changed), 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        width, height = (int(v) for v in rng.integers(60, 400, 2))
        x0, y0 = int(rng.integers(0, width - 40)), int(rng.integers(0, height - 40))
        box = (x0, y0, int(rng.integers(x0 + 20, width + 1)), int(rng.integers(y0 + 20, height + 1)))
        sample = policy(*painted(width, height, box), rng, (160, 120))
        shown = extents(sample.image, 0)
        assert sample.image.shape == (120, 160, 3)
        if len(sample.annotations):
            assert shown is not None
            np.testing.assert_allclose(sample.annotations.boxes[0], shown, atol=1.5)
            assert sample.annotations.difficult[0]
            assert sample.annotations.extra["line"][0] == 7
            seen += 1
        elif shown is not None:  # dropped: then it must have been cut by the border
            assert (shown[:2] == 0).any() or shown[2] == 160 or shown[3] == 120
    assert seen >= 45


def test_mosaic_moves_four_rectangles_with_their_boxes() -> None:
    pictures = [painted(200, 150, (60, 40, 150, 110), label) for label in range(4)]
    seen = 0
    for seed in range(40):
        turn = iter(pictures[1:])
        sample = calm("mosaic")(*pictures[0], np.random.default_rng(seed), (160, 120), lambda _rng, t=turn: next(t))
        assert len(set(sample.annotations.labels)) == len(sample.annotations) <= 4
        for box, label in zip(sample.annotations.boxes, sample.annotations.labels, strict=True):
            np.testing.assert_allclose(box, extents(sample.image, label), atol=1.5)
            seen += 1
        own = sample.annotations.boxes[sample.annotations.labels == 0]
        if len(own):  # the transform is that of the picture itself
            back = sample.transform.to_net([[60, 40, 150, 110]])[0].reshape(2, 2)
            assert (own[0].reshape(2, 2)[0] >= back.min(0) - 1e-9).all()
            assert (own[0].reshape(2, 2)[1] <= back.max(0) + 1e-9).all()
    assert seen > 60


boxes_anywhere = st.lists(
    st.tuples(st.floats(-30, 230), st.floats(-30, 180), st.floats(0.01, 250), st.floats(0.01, 200)), max_size=8
)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(POLICIES)), boxes_anywhere, st.integers(0, 2**63), st.sampled_from(["squash", "letterbox"]),
    st.lists(st.booleans(), min_size=8, max_size=8),
)  # fmt: skip
def test_boxes_stay_inside_and_upright(
    name: str, corners: list[tuple[float, ...]], seed: int, fit: Any, flags: list[bool]
) -> None:
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in corners]).reshape(-1, 4)
    n = len(boxes)
    truth = Annotations(boxes, np.arange(n), crowd=flags[:n], extra={"row": np.arange(n)})
    image = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    before = image.copy()
    policy, size = with_fit(POLICIES[name](), fit), (96, 80)
    samples = [policy(image, truth, np.random.default_rng(seed), size, lambda _rng: (image, truth)) for _ in range(2)]
    out = samples[0].annotations
    assert samples[0].image.shape == (80, 96, 3)
    assert samples[0].image.dtype == np.uint8
    assert (out.boxes >= 0).all()
    assert (out.boxes <= np.array([96, 80, 96, 80])).all()
    least = np.array([0.096, 0.08]) if name == "darknet" else 1.0  # darknet keeps down to a thousandth of a side
    assert ((out.boxes[:, 2:] - out.boxes[:, :2]) >= least - 1e-9).all()
    np.testing.assert_array_equal(out.labels, out.extra["row"])
    np.testing.assert_array_equal(out.crowd, np.array(flags, bool)[out.labels])
    np.testing.assert_array_equal(image, before)  # a cached image is never written to
    np.testing.assert_array_equal(samples[0].image, samples[1].image)
    np.testing.assert_array_equal(out.boxes, samples[1].annotations.boxes)


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 700, 3), (333, 2, 3)])
def test_images_without_boxes_and_of_odd_shapes(name: str, shape: tuple[int, ...]) -> None:
    image = np.full(shape, 9, np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = POLICIES[name]()(image, Annotations.empty(), rng, (64, 48), lambda _rng: (image, Annotations.empty()))
        assert sample.image.shape == (48, 64, 3)
        assert sample.annotations.boxes.shape == (0, 4)


def test_none_is_the_whole_image_and_draws_nothing() -> None:
    image, truth = painted(80, 60, (10, 10, 40, 30))
    rng = np.random.default_rng(5)
    sample = augmentation("none")(image, truth, rng, (160, 60))
    np.testing.assert_allclose(sample.annotations.boxes, [[20, 10, 80, 30]])
    assert rng.random() == np.random.default_rng(5).random()


def test_ssd_keeps_boxes_by_their_centre_and_every_sample_has_one() -> None:
    image, truth = painted(300, 200, (100, 80, 180, 150))
    boxes = [augmentation("ssd")(image, truth, np.random.default_rng(s), (100, 100)).annotations for s in range(200)]
    assert all(len(sample) == 1 for sample in boxes)
    areas = np.array([np.prod(sample.boxes[0, 2:] - sample.boxes[0, :2]) for sample in boxes])
    assert areas.min() < 200  # zoomed out
    assert areas.max() > 6000  # zoomed in


def test_ignored_regions_do_not_steer_and_stay_in_part() -> None:
    image, _ = painted(100, 100, (0, 0, 1, 1))
    truth = Annotations(np.array([[0.0, 0, 80, 80], [0, 0, 80, 80]]), [0, 0], crowd=[True, False])
    out = moved(truth, ImageTransform(1, 1, -60, -60), (40, 40))
    assert out.crowd.tolist() == [True]
    np.testing.assert_allclose(out.boxes, [[0, 0, 20, 20]])
    crowd_only = Annotations(np.array([[0.0, 0, 10, 10]]), [0], crowd=[True])
    samples = [
        augmentation("ssd", expand=0.0)(image, crowd_only, np.random.default_rng(s), (50, 50)) for s in range(60)
    ]
    assert any(len(sample.annotations) == 0 for sample in samples)


def test_moved_drops_what_hardly_shows() -> None:
    truth = Annotations(np.array([[-6.0, 0, 4, 10], [-5, 0, 5.5, 10], [20, 20, 20.9, 30], [0, 0, 0, 0]]), range(4))
    assert moved(truth, ImageTransform(), (40, 40)).labels.tolist() == [1]
    assert moved(truth, ImageTransform(), (40, 40), visible=0.4).labels.tolist() == [0, 1]
    assert moved(truth, ImageTransform(), (40, 40), visible=0.41).labels.tolist() == [1]


def test_joined_keeps_common_columns() -> None:
    one = Annotations(np.ones((2, 4)), [1, 2], extra={"line": [3, 4], "area": [1, 1]})
    two = Annotations(np.zeros((1, 4)), [5], ignore=[True], extra={"line": [9]})
    out = joined([one, two, Annotations(np.zeros((0, 4)), [], extra={"line": []})])
    assert out.labels.tolist() == [1, 2, 5]
    assert out.ignore.tolist() == [False, False, True]
    assert {key: column.tolist() for key, column in out.extra.items()} == {"line": [3, 4, 9]}


def test_a_recipe_can_name_and_change_policies() -> None:
    policy = augmentation("mosaic", probability=0.25, zoom={"scale": [0.9, 1.1], "photometric": {"hue": 0}})
    assert isinstance(policy, Mosaic)
    assert (policy.probability, policy.zoom.scale, policy.zoom.photometric.hue) == (0.25, (0.9, 1.1), 0)
    assert policy.zoom.photometric.brightness == 24
    assert with_fit(policy, "letterbox").fit == "letterbox"
    assert with_fit(augmentation("ssd"), "letterbox").fit == "letterbox"


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("sdd", {}, "did you mean 'ssd'"),
        ("zoom", {"miror": 1.0}, "did you mean 'mirror'"),
        ("zoom", {"photometric": {"hues": 1.0}}, "did you mean 'hue'"),
        ("zoom", {"scale": (1.4, 0.6)}, "low <= high"),
        ("zoom", {"scale": 3}, "scale: expected a list of 2 numbers, got 3"),
        ("zoom", {"mirror": {"p": 1}}, "mirror: expected a float"),
        ("zoom", {"photometric": 1}, "photometric: expected a mapping of brightness"),
        ("ssd", {"photometric": {"contrast": (2, 1)}}, "contrast"),
        ("zoom", {"mirror": 5}, "Zoom.mirror: expected 0 to 1, got 5"),
        ("mosaic", {"probability": -0.1}, "Mosaic.probability: expected 0 to 1"),
        ("mosaic", {"centre": (0.7, 0.3)}, "Mosaic.centre: expected 0 < low <= high"),
        ("mosaic", {"scale": (0.0, 1.0)}, "Mosaic.scale: expected 0 < low <= high"),
        ("mosaic", {"zoom": {"visible": 2}}, "Zoom.visible: expected 0 to 1"),
        ("ssd", {"overlaps": (0.1, 3.0)}, "SSD.overlaps: expected 0 to 1"),
        ("ssd", {"ratio": (4, 1)}, "SSD.ratio: expected 0 < low <= high"),
    ],
)
def test_misspelt_and_bad_parameters_are_told(name: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        augmentation(name, **changed)
