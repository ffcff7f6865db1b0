"""The recorder as the loop's observer: it changes nothing, names what is wrong, and the loop does as it says."""

from __future__ import annotations

import math

import pytest
import torch
from planted import CLASSES, GOOD, Rooted, Unclamped, batch, good, lite

from onestage.errors import DivergedError
from onestage.training.devices.machine import engine
from onestage.training.loop.loop import Loop, RollBack
from onestage.training.recipe import Guard
from onestage.training.recipe.schedule import Optimiser, Schedule
from onestage.training.recipe.stages import Leg
from onestage.training.recorder import Recorder

ZERO = (20.0, 10.0, 20.0, 40.0)


def watched(detector=None, precision: str = "fp32", observer: bool = True, folder=None, **keys):
    """A loop of plain SGD under a recorder with these keys of the guard."""
    accumulate = keys.pop("accumulate", 1)
    recorder = Recorder(
        Guard(**keys), folder=folder, file_of=lambda image: f"photos/{image}.jpg", classes=CLASSES, precision=precision
    )
    made = Loop(
        engine("cpu", precision), detector or lite(), weights={}, accumulate=accumulate,
        observer=recorder if observer else None,
    )  # fmt: skip
    made.enter(
        Leg(0, "all", 0, 1, 0, 10, (), Optimiser(name="sgd", lr=0.01), Schedule(name="constant", warmup=0), 10.0)
    )
    return made, recorder


def run(made: Loop, *batches):
    return list(made.epoch(0, iter(batches), len(batches[0])))


def weights(made: Loop):
    return {name: value.clone() for name, value in made.detector.state_dict().items()}


def same(a, b) -> bool:
    return all(torch.equal(value, b[name]) for name, value in a.items())


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_watched_run_is_the_unwatched_run_bit_for_bit(precision):
    batches = [batch(GOOD, (), seed=seed) for seed in range(2 if precision == "fp16" else 4)]
    (one, recorder), (other, _) = watched(precision=precision), watched(precision=precision, observer=False)
    rows, unwatched = run(one, *batches), run(other, *batches)
    assert [row.loss for row in rows] == [row.loss for row in unwatched]
    assert same(weights(one), weights(other))
    assert recorder.incidents == []
    assert [entry.step for entry in recorder.ring.entries] == [row.step for row in rows]
    assert recorder.ring.entries[-1].seconds["step"] > 0
    total = recorder.ring.entries[0].parts["cls"].sum()
    assert total == pytest.approx(rows[0].raw["cls"] * (rows[0].positives + 1), rel=1e-5)  # the empty image counts as 1


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_broken_truth_stops_the_run_with_its_place_whatever_the_cut(accumulate, tmp_path):
    made, recorder = watched(Unclamped(), accumulate=accumulate, folder=tmp_path)
    run(made, batch(*good()))
    before = weights(made)
    with pytest.raises(DivergedError) as caught:
        run(made, batch(GOOD, GOOD, GOOD, (GOOD[0], ZERO), seed=1))
    message = str(caught.value)
    for part in ("step 2", "photos/im3.jpg", "truth 1 van (20, 10, 20, 40)", "prior 5", "ln(w / prior w) / 0.2 = -inf"):
        assert part in message
    assert caught.value.exit_code == 7
    assert same(before, weights(made))
    assert (tmp_path / "step-000002.md").is_file()
    assert recorder.ring.entries[-1].positives.sum() == 4 * 2 - 1  # the two truths of image 3 share a prior


def test_a_label_that_is_no_class_never_reaches_the_loss():
    made, recorder = watched()
    with pytest.raises(DivergedError, match=r"im1\.jpg.*label 7, but the model has 3 classes"):
        run(made, batch(*good(2), labels={(1, 0): 7}))
    assert recorder.incidents[0].culprit.row == 0


def test_skipped_steps_leave_weights_and_statistics_alone():
    made, recorder = watched(nan="skip")
    run(made, batch(*good()))
    before = weights(made)
    rows = run(made, batch(GOOD, GOOD, GOOD, (ZERO,), seed=1))
    assert rows[0].extra["skipped"]
    assert same(before, weights(made))
    assert not same(before, (run(made, batch(*good(), seed=2)), weights(made))[1])
    assert recorder.counts["skip"] == 1


def test_a_rollback_is_asked_for():
    made, _ = watched(Rooted(), nan="rollback")
    with pytest.raises(RollBack):
        run(made, batch(*good(2)))


def test_a_gradient_that_is_not_finite_is_traced_though_clipping_spread_it():
    made, recorder = watched(Rooted())
    with pytest.raises(DivergedError, match="sqrt at 0"):
        run(made, batch(*good(2)))
    assert recorder.incidents[0].culprit.prior is not None


def test_half_precision_that_overflows_is_named():
    detector = lite()
    with torch.no_grad():
        detector.backbone.stem[0].weight *= 1e6
    made, _ = watched(detector, "fp16")
    with pytest.raises(DivergedError, match=r"fp16 overflows in backbone\.stem\.0") as caught:
        run(made, batch(*good()))
    assert caught.value.hint == "precision=bf16 or precision=fp32"


def test_a_learning_rate_of_a_million_is_named_within_a_few_steps():
    made, recorder = watched(spike="stop")
    made.leg = Leg(0, "all", 0, 1, 0, 10, (), Optimiser(name="sgd", lr=1e6), Schedule(name="constant", warmup=0), 0.0)
    made.enter(made.leg)
    with pytest.raises(DivergedError, match=r"weights have run away|not finite"):
        run(made, *[batch(*good(), seed=seed) for seed in range(6)])
    assert recorder.incidents[-1].culprit.code in ("exploded-weights", "non-finite-weight")
    assert math.isfinite(recorder.ring.entries[0].loss)
