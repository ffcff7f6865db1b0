"""Policies that are wrong on purpose are named rightly, and the package's own raise nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import pytest

from onestage.data.augment import Plain, augmentation
from onestage.data.images import Fit, Pixels, Size
from onestage.data.policy import Others, Policy, Sample
from onestage.data.policy_check import CODES, policy_keeps_boxes
from onestage.records import Annotations

OWN: list[tuple[str, dict[str, Any]]] = [
    ("none", {}),
    ("none", {"fit": "letterbox"}),
    ("ssd", {}),
    ("ssd", {"fit": "letterbox", "ratio": (1.0, 8.0), "expand": 1.0}),
    ("ssd", {"sides": (0.1, 0.4), "overlaps": (0.9,), "mirror": 1.0}),
    ("ssd", {"photometric": {"brightness": 250.0, "contrast": (0.0, 3.0), "hue": 180.0, "probability": 1.0}}),
    ("zoom", {}),
    ("zoom", {"transpose": 0.5, "upside_down": 0.5, "fit": "letterbox"}),
    ("zoom", {"scale": (0.2, 4.0), "aspect": (0.4, 2.5), "visible": 0.0}),
    ("zoom", {"visible": 1.0, "fill": (255, 255, 255)}),
    ("faceboxes", {}),
    ("faceboxes", {"min_face": 40.0, "visible": 1.0, "mirror": 1.0}),
    ("faceboxes", {"sides": (0.1, 0.4), "entire": 0.5, "wholly": False, "fit": "letterbox"}),
    ("darknet", {}),
    ("darknet", {"jitter": 0.6, "fit": "squash", "hue": 0.5, "saturation": 4.0, "exposure": 4.0}),
    ("darknet", {"crop": True, "resize": 1.5, "flip": 1.0}),
    ("mosaic", {}),
    ("mosaic", {"probability": 1.0, "zoom": {"policy": "darknet"}, "scale": (1.0, 1.0)}),
    ("mosaic", {"probability": 1.0, "centre": (0.05, 0.95), "scale": (0.2, 3.0)}),
    ("mosaic", {"probability": 1.0, "zoom": {"transpose": 0.5, "upside_down": 0.5, "photometric": {"hue": 180.0}}}),
]


@pytest.mark.parametrize(("name", "options"), OWN, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("size", [(320, 320), (512, 256), (100, 300)], ids=str)
def test_own_policies_raise_nothing(name: str, options: dict[str, Any], size: Size) -> None:
    assert policy_keeps_boxes(augmentation(name, **options), size, tries=60) == []


def test_the_check_is_quick_enough_for_every_start() -> None:
    policy = augmentation("mosaic")
    policy_keeps_boxes(policy, (320, 320))
    seconds = []
    for _ in range(5):
        start = time.process_time()
        policy_keeps_boxes(policy, (320, 320))
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1


Change = Callable[[Sample, np.random.Generator], Sample]


@dataclass(frozen=True)
class Wrong:
    """A policy whose samples are spoilt by `change` afterwards."""

    change: Change
    inner: Policy = field(default_factory=Plain)

    @property
    def fit(self) -> Fit:
        return self.inner.fit

    def __call__(
        self, image: Pixels, annotations: Annotations, rng: np.random.Generator, size: Size,
        others: Others | None = None,
    ) -> Sample:  # fmt: skip
        return self.change(self.inner(image, annotations, rng, size, others), rng)


def with_image(sample: Sample, image: Any) -> Sample:
    return sample._replace(image=np.ascontiguousarray(image, np.uint8))


def with_boxes(sample: Sample, boxes: Any) -> Sample:
    return sample._replace(annotations=replace(sample.annotations, boxes=boxes))


def flipped(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_image(sample, sample.image[:, ::-1]) if rng.random() < 0.5 else sample


def upside_down(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_image(sample, sample.image[::-1]) if rng.random() < 0.3 else sample


def warped(sample: Sample, scale: float, right: float, down: float) -> Sample:
    """The image alone through an affine map about its centre."""
    height, width = sample.image.shape[:2]
    matrix = np.array(
        [[scale, 0, (1 - scale) * width / 2 + right * width], [0, scale, (1 - scale) * height / 2 + down * height]]
    )
    return with_image(sample, cv2.warpAffine(sample.image, matrix, (width, height)))


def diary_002(sample: Sample, rng: np.random.Generator) -> Sample:
    """systems.md 002.4 and 002.9: ImageBaseAug's Affine(translate 10 %, scale 1 … 2.5), boxes as they were."""
    return warped(sample, rng.uniform(1.0, 2.5), *rng.uniform(-0.1, 0.1, 2))


def shifted(sample: Sample, rng: np.random.Generator) -> Sample:
    return warped(sample, 1.0, *rng.uniform(-0.1, 0.1, 2))


def boxes_flipped(sample: Sample, rng: np.random.Generator) -> Sample:
    boxes, width = sample.annotations.boxes, sample.image.shape[1]
    return with_boxes(sample, np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1))


def boxes_in_another_order(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_boxes(sample, sample.annotations.boxes[:, [1, 0, 3, 2]])


def one_box_lost(sample: Sample, rng: np.random.Generator) -> Sample:
    return sample._replace(annotations=sample.annotations.take(np.arange(1, len(sample.annotations))))


def none_kept(sample: Sample, rng: np.random.Generator) -> Sample:
    return sample._replace(annotations=Annotations.empty())


def mirrored_without_order(sample: Sample, rng: np.random.Generator) -> Sample:
    boxes, width = sample.annotations.boxes.copy(), sample.image.shape[1]
    boxes[:, [0, 2]] = width - boxes[:, [0, 2]]
    return with_boxes(with_image(sample, sample.image[:, ::-1]), boxes)


def not_cut(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_boxes(sample, sample.annotations.boxes + np.array([0, 0, sample.image.shape[1], 0]))


def not_a_number(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_boxes(sample, sample.annotations.boxes * np.nan)


def other_labels(sample: Sample, rng: np.random.Generator) -> Sample:
    return sample._replace(annotations=replace(sample.annotations, labels=sample.annotations.labels + 1))


def labels_exchanged(sample: Sample, rng: np.random.Generator) -> Sample:
    return sample._replace(annotations=replace(sample.annotations, labels=sample.annotations.labels[::-1]))


def too_large(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_image(sample, np.repeat(sample.image, 2, 0))


def channels_first(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_image(sample, sample.image.transpose(2, 0, 1))


def own_chance(sample: Sample, rng: np.random.Generator) -> Sample:
    return with_image(sample, sample.image // 2 + np.random.default_rng().integers(0, 9, sample.image.shape))


FAULTS: list[tuple[Change, Policy, str]] = [
    (flipped, Plain(), "policy-moves-image-only"),
    (flipped, augmentation("zoom"), "policy-moves-image-only"),
    (flipped, augmentation("ssd"), "policy-moves-image-only"),
    (flipped, augmentation("mosaic"), "policy-moves-image-only"),
    (upside_down, augmentation("zoom"), "policy-moves-image-only"),
    (diary_002, Plain(), "policy-moves-image-only"),
    (diary_002, augmentation("zoom"), "policy-moves-image-only"),
    (shifted, Plain(fit="letterbox"), "policy-moves-image-only"),
    (shifted, augmentation("mosaic"), "policy-moves-image-only"),
    (boxes_flipped, Plain(), "policy-moves-boxes-only"),
    (boxes_in_another_order, Plain(fit="letterbox"), "policy-moves-boxes-only"),
    (one_box_lost, Plain(), "policy-loses-boxes"),
    (one_box_lost, augmentation("zoom"), "policy-loses-boxes"),
    (none_kept, augmentation("mosaic"), "policy-loses-boxes"),
    (mirrored_without_order, Plain(), "policy-breaks-boxes"),
    (not_cut, augmentation("ssd"), "policy-breaks-boxes"),
    (not_a_number, Plain(), "policy-breaks-boxes"),
    (other_labels, augmentation("zoom"), "policy-changes-labels"),
    (labels_exchanged, Plain(), "policy-changes-labels"),
    (too_large, Plain(), "policy-breaks-samples"),
    (channels_first, Plain(), "policy-breaks-samples"),
    (own_chance, Plain(), "policy-draws-elsewhere"),
]


@pytest.mark.parametrize(("change", "inner", "code"), FAULTS, ids=lambda value: getattr(value, "__name__", "")[:30])
@pytest.mark.parametrize("size", [(320, 320), (200, 416)], ids=str)
def test_a_fault_is_named(change: Change, inner: Policy, code: str, size: Size) -> None:
    findings = policy_keeps_boxes(Wrong(change, inner), size)
    codes = {finding.code for finding in findings}
    assert code in CODES
    assert code in codes
    assert findings[0].what
    assert findings[0].consequence
    assert findings[0].remedy
    assert findings[0].evidence["times"] >= 1
    beside = {boxes_in_another_order: "policy-breaks-boxes"}.get(change, "policy-moves-image-only")
    assert codes <= {code, beside}


@dataclass(frozen=True)
class Quadrants:
    """Two pictures side by side; the boxes of the second stay where they were in it."""

    fit: Fit = "squash"

    def __call__(
        self, image: Pixels, annotations: Annotations, rng: np.random.Generator, size: Size,
        others: Others | None = None,
    ) -> Sample:  # fmt: skip
        half = (size[0] // 2, size[1])
        left = Plain()(image, annotations, rng, half)
        right = Plain()(*others(rng), rng, half) if others else left
        both = [left.annotations, right.annotations]
        truth = Annotations(*(np.concatenate([getattr(b, c) for b in both]) for c in ("boxes", "labels")))
        return Sample(np.concatenate([left.image, right.image], 1), truth, left.transform)


def test_a_mosaic_that_forgets_to_move_the_others_is_found() -> None:
    (finding,) = policy_keeps_boxes(Quadrants(), (320, 320))
    assert finding.code == "policy-moves-image-only"
    assert finding.evidence["times"] >= 5


def test_how_the_finding_reads() -> None:
    (finding,) = policy_keeps_boxes(Wrong(boxes_flipped), (320, 320))
    assert finding.severity == "error"
    assert finding.what.startswith("the augmentation moves boxes without the picture: object at (")
    assert finding.evidence["times"] == finding.evidence["objects"] >= 20
    assert len(finding.evidence["examples"]) == 3
    assert finding.as_dict()["evidence"]["examples"]
