"""Faults planted in data, weights, losses and precision: each must be named rightly, and no healthy step."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import GOOD, SIZE, PerPositive, Rooted, RootedBody, Unbounded, Unclamped, batch, bench, good, lite

from onestage.models import MODELS
from onestage.training.loop.norms import synchronise
from onestage.training.recipe import Guard
from onestage.training.recorder.culprit import Cause
from onestage.training.recorder.recorder import spikes_for
from onestage.training.recorder.rerun import would_wait_for_others


def culprit(run) -> Cause:
    assert len(run.recorder.incidents) == 1
    return run.recorder.incidents[0].culprit


# Wrong truths: the shipped loss stays finite, the data are wrong all the same

ZERO, INVERTED = (20.0, 10.0, 20.0, 40.0), (40.0, 10.0, 20.0, 30.0)
WRONG_BOXES = {
    "zero width": (ZERO, "width 0", "ln(0) = -inf"),
    "zero height": ((10.0, 20.0, 40.0, 20.0), "height 0", "ln(h / prior h) with h = 0 is ln(0) = -inf"),
    "inverted": (INVERTED, "x1 is greater than x2", "with w = -20 is ln of a negative number: nan"),
    "nan": ((10.0, math.nan, 30.0, 40.0), "not a finite number", "not finite"),
    "inf": ((math.inf, 10.0, math.inf, 40.0), "not a finite number", "not finite"),
}


@pytest.mark.parametrize("fault", WRONG_BOXES)
def test_a_broken_box_is_named_though_the_loss_is_finite(fault):
    box, what, formula = WRONG_BOXES[fault]
    run = bench()
    assert run(batch(GOOD, GOOD, (*GOOD, box), GOOD)) == "stop"
    cause = culprit(run)
    assert run.recorder.incidents[0].kind == "batch"
    assert (cause.code, cause.image, cause.file, cause.row) == ("broken-box", "im2", "photos/im2.jpg", 2)
    assert cause.box == pytest.approx(box, nan_ok=True)
    assert cause.label == "bus"
    assert what in cause.what
    assert formula in cause.formula
    error = run.recorder.error()
    assert error.exit_code == 7
    assert "photos/im2.jpg" in error.message
    assert error.hint == cause.remedy


@pytest.mark.parametrize("box", [(0.0, 0, 1e6, 1e6), (0.0, 0, 1e30, 1e30), (900.0, 900, 920, 920)])
def test_a_huge_or_far_box_is_told_once_and_stops_nothing(box):
    run = bench()
    assert run(batch(GOOD, (*GOOD, box), GOOD, GOOD), update=False) == "go"
    cause = culprit(run)
    assert (cause.code, cause.image, cause.row, cause.severity) == ("outsize-box", "im1", 2, "warning")
    assert cause.box == pytest.approx(box)
    assert (cause.prior is not None) == (box[2] == 1e6)  # the overlap of 1e30 is 0 in float32, of the far one too
    assert run(batch(GOOD, (*GOOD, box), GOOD, GOOD), update=False) == "go"
    assert len(run.recorder.incidents) == 1


@pytest.mark.parametrize("label", [3, -1, 80])
def test_a_label_that_is_no_class_is_named_before_the_loss_sees_it(label):
    run = bench()
    one = batch(*good(), labels={(3, 1): label})
    assert run.recorder.before(1, 0, one, run.detector) == "stop"
    cause = culprit(run)
    assert (cause.code, cause.image, cause.row, cause.box) == ("label-out-of-range", "im3", 1, GOOD[1])
    assert f"label {label}" in cause.what
    assert "3 classes" in cause.what
    assert run.recorder.before(2, 0, batch(*good()), run.detector) == "go"


def test_a_batch_of_another_size_is_named():
    run = bench()
    assert run.recorder.before(1, 0, batch(*good(), size=(96, 64)), run.detector) == "stop"
    assert culprit(run).code == "wrong-shape"
    assert "96x64" in culprit(run).what


# Pixels


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pixel_that_is_not_finite_is_named_with_its_place(value):
    one = batch(*good(), pixels="float32")
    one.images[1, 2, 5, 7] = value
    run = bench()
    assert run(one) == "stop"
    cause = culprit(run)
    assert run.recorder.incidents[0].kind == "nan-loss"
    assert (cause.code, cause.image, cause.file) == ("non-finite-pixel", "im1", "photos/im1.jpg")
    assert "x=7, y=5, B" in cause.what


def test_a_black_image_is_told_and_goes_on():
    one = batch(*good())
    one.images[2] = 0
    run = bench()
    assert run(one, update=False) == "go"
    assert (culprit(run).code, culprit(run).image, culprit(run).severity) == ("constant-image", "im2", "warning")
    assert "black" in culprit(run).what


# Formulas


@pytest.mark.parametrize(
    ("box", "value", "kind"),
    [(ZERO, "-inf", "a logarithm of 0"), (INVERTED, "nan", "a logarithm of a negative number")],
)
def test_a_logarithm_that_blew_is_named_with_truth_prior_and_numbers(box, value, kind):
    run = bench(Unclamped())
    assert run(batch(GOOD, (GOOD[0], box))) == "stop"
    cause = culprit(run)
    assert run.recorder.incidents[0].kind == "nan-loss"
    assert (cause.code, cause.image, cause.row, cause.box, cause.label) == ("broken-box", "im1", 1, box, "van")
    expected = run.detector.match(_truths(box)).tolist().index(1)
    assert (cause.prior.number, cause.prior.level) == (expected, 0)
    assert cause.formula == f"ln(w / prior w) / 0.2 = {value} with w = {box[2] - box[0]:g}, prior w = 16"
    assert cause.consequence.startswith(kind)
    assert "prior" in run.recorder.error().message
    assert "ln(w / prior w)" in run.recorder.error().message


def _truths(box):
    from onestage.models.detector import Truth

    return Truth(torch.tensor([GOOD[0], box]), torch.tensor([0, 1]), torch.tensor([False, False]))


def test_an_exp_that_overflows_is_named_with_its_prior():
    run = bench(Unbounded())
    assert run(batch(*good(2))) == "stop"
    cause = culprit(run)
    assert (cause.code, cause.image, cause.sure) == ("loss-formula", "im1", "certain")
    assert cause.row in (0, 1)
    assert cause.prior is not None
    assert cause.formula.startswith("exp(0.2 offset w) = inf with offset w = 6")
    assert cause.consequence.startswith("exp overflows")
    assert "bound the exponent" in cause.remedy


def test_a_batch_without_positives_is_named_where_the_loss_divides_by_them():
    run = bench(PerPositive())
    assert run(batch((), ())) == "stop"
    cause = culprit(run)
    assert (cause.code, cause.sure) == ("no-positives", "certain")
    assert cause.formula == "sum of box losses / positives: 0 / 0 = nan"
    assert "at least 1" in cause.remedy


def test_a_derivative_that_is_not_finite_is_named_with_prior_and_function():
    run = bench(Rooted())
    assert run(batch(*good(2))) == "stop"
    incident, cause = run.recorder.incidents[0], culprit(run)
    assert incident.kind == "nan-gradient"
    assert (cause.code, cause.image, cause.sure) == ("nan-gradient", "im1", "certain")
    assert cause.row is not None
    assert cause.prior is not None
    assert "sqrt at 0" in cause.formula
    assert "SqrtBackward0" in cause.formula
    assert cause.names == ()  # both parameters there are: that says nothing


def test_a_derivative_of_the_model_that_is_not_finite_is_named_with_parameter_and_function():
    run = bench(RootedBody())
    one = batch(*good(2))
    one.images[1, :, 0, 0] = 0
    assert run(one) == "stop"
    cause = culprit(run)
    assert (cause.code, cause.sure, cause.prior) == ("nan-gradient", "certain", None)
    assert cause.names == ("linear.weight",)
    assert "first in SqrtBackward0" in cause.what


def test_a_detector_that_tells_nothing_is_no_crash():
    class Silent(Unclamped):
        tells = False

    run = bench(Silent())
    assert run(batch(GOOD, (GOOD[0], ZERO))) == "stop"
    cause = culprit(run)
    assert (cause.code, cause.image, cause.row, cause.prior) == ("broken-box", "im1", 1, None)
    assert any("the prior failed" in note for note in run.recorder.incidents[0].diagnosis.notes)
    none = bench(type("SilentDivision", (PerPositive,), {"tells": False})())
    assert none(batch((), ())) == "stop"
    assert (culprit(none).code, culprit(none).sure) == ("no-positives", "likely")


# Weights and precision


def test_a_poisoned_weight_is_named():
    detector = lite()
    name, parameter = list(detector.named_parameters())[40]
    with torch.no_grad():
        parameter.view(-1)[3] = math.nan
    run = bench(detector)
    assert run(batch(*good())) == "stop"
    assert (culprit(run).code, culprit(run).names) == ("non-finite-weight", (name,))
    assert name in culprit(run).what


def test_poisoned_statistics_are_named_while_they_train_and_while_they_are_frozen():
    for frozen in (False, True):
        detector = lite()
        norm = next(m for m in detector.modules() if isinstance(m, torch.nn.BatchNorm2d))
        name = next(n for n, m in detector.named_modules() if m is norm)
        norm.running_mean[0] = math.nan
        norm.train(not frozen)
        run = bench(detector)
        assert run(batch(*good())) == "stop"
        assert run.recorder.incidents[0].kind == ("nan-loss" if frozen else "statistics")
        assert culprit(run).code == "non-finite-weight"
        assert f"{name}.running_mean" in culprit(run).names


def test_a_learning_rate_of_a_million_is_named():
    run = bench(lr=1e6)
    for _ in range(6):
        if run(batch(*good(), seed=run.step)) != "go" or run.recorder.incidents:
            break
    cause = run.recorder.incidents[0].culprit
    assert cause.code == "exploded-weights"
    assert "lr 1e+06" in cause.what
    assert "lower optimiser.lr" in cause.remedy
    for _ in range(3):
        run(batch(*good()), update=False)
    assert len(run.recorder.incidents) == 1  # told once, not at every step from there on


def test_an_overflow_of_half_precision_is_told_from_one_of_the_weights():
    detector = lite()
    name, conv = next((n, m) for n, m in detector.named_modules() if n == "backbone.stem.0" or n == "backbone.stem")
    conv = conv if isinstance(conv, torch.nn.Conv2d) else conv[0]
    with torch.no_grad():
        conv.weight *= 1e6
    run = bench(detector, precision="fp16", scale=1024.0)
    random = torch.get_rng_state()
    assert run(batch(*good())) == "stop"
    cause = culprit(run)
    assert (cause.code, cause.sure) == ("amp-overflow", "certain")
    assert cause.names[0].startswith(name)
    assert "65504" in cause.what
    assert "precision=bf16 or precision=fp32" in cause.remedy
    assert torch.equal(random, torch.get_rng_state())


def test_one_process_does_not_wait_for_others_in_synchronised_norms(monkeypatch):
    detector = lite()
    synchronise(detector)
    assert not would_wait_for_others(detector)
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    assert would_wait_for_others(detector)
    assert not would_wait_for_others(lite())
    assert not would_wait_for_others(detector.eval())


def test_the_diagnosis_touches_neither_statistics_nor_gradients_nor_random_states():
    from onestage.training.recorder.rerun import first_not_finite

    detector = lite()
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    random = torch.get_rng_state()
    assert first_not_finite(detector, torch.from_numpy(batch(*good()).images), "fp32") is None
    assert all(torch.equal(value, before[key]) for key, value in detector.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert not any(module._forward_hooks for module in detector.modules())


def test_gradients_that_overflow_in_fp16_are_the_scalers_business_until_there_are_ten_in_a_row():
    run = bench(Rooted(), precision="fp16", scale=2.0**16)
    for _ in range(9):
        assert run(batch(*good(2)), update=False) == "go"
    assert not run.recorder.incidents
    assert run(batch(*good(2)), update=False) == "stop"
    assert run.recorder.incidents[0].kind == "overflow"
    low = bench(Rooted(), precision="fp16", scale=0.5)
    assert low(batch(*good(2)), update=False) == "stop"


# Spikes: seen against the steps before


def warmed(detector=None, steps: int = 40, **keys):
    """A bench after healthy steps without learning."""
    run = bench(detector, **keys)
    for step in range(steps):
        assert run(batch(*good(), seed=step), update=False) == "go"
    assert not run.recorder.incidents
    return run


def test_a_crowd_is_named_with_its_image():
    run = warmed(Unclamped())
    crowd = [(x, y, x + 11.0, y + 11.0) for x in range(0, 64, 16) for y in range(0, 64, 16)]
    assert run(batch(GOOD, GOOD, GOOD, crowd, crowd, crowd, crowd), update=False) == "go"
    cause = culprit(run)
    assert run.recorder.incidents[0].kind == "spike"
    assert (cause.code, cause.image) == ("crowd-batch", "im3")
    assert "16 truths" in cause.what
    assert "positives" in [spike.what for spike in run.recorder.incidents[0].spikes]


def test_one_image_that_makes_the_loss_is_named_with_its_heaviest_prior():
    class OneBad(Unclamped):
        bad = False

        def forward(self, images):
            offsets, logits = super().forward(images)
            push = torch.zeros_like(offsets)
            push[2, :, 2] = 5e3 * self.bad
            return type(raw := super().forward(images))(raw.offsets + push, logits)

    run = warmed(OneBad())
    run.detector.bad = True
    assert run(batch(*good()), update=False) == "go"
    cause = culprit(run)
    assert (cause.code, cause.image) == ("one-image", "im2")
    assert cause.prior is not None
    assert cause.row in (0, 1)
    assert cause.numbers["w"] in (20.0, 40.0)


# What becomes of it


def test_the_guard_says_what_is_done_and_how_often():
    for word in ("skip", "rollback"):
        run = bench(Rooted(), guard=Guard(nan=word, most=2))
        decisions = [run(batch(*good(2)), update=False) for _ in range(3)]
        assert decisions == [word, word, "stop"]
        assert "guard.most is 2" in str(run.recorder.error())
    run = bench(guard=Guard(spike="stop"))
    assert run(batch(GOOD, (*GOOD, (0.0, 0, 1e6, 1e6))), update=False) == "stop"


def test_wrong_data_are_skipped_where_a_rollback_would_come_to_them_again():
    run = bench(Unclamped(), guard=Guard(nan="rollback"))
    assert run(batch(GOOD, (GOOD[0], ZERO)), update=False) == "skip"
    assert "same batch again" in run.recorder.incidents[0].diagnosis.notes[0]


def test_odd_images_are_told_of_ten_times_at_most():
    run = bench(Unclamped())
    for step in range(15):
        one = batch(GOOD, seed=step)
        one = type(one)(np.zeros_like(one.images), one.annotations, one.transforms, [f"black{step}"], one.seeds)
        assert run(one, update=False) == "go"
    assert len(run.recorder.incidents) == 10


def test_several_processes_write_their_own_reports(tmp_path):
    run = bench(Unclamped(), folder=tmp_path, rank=1)
    run(batch(GOOD, (GOOD[0], ZERO)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001-rank1.json", "step-000001-rank1.md"]


def test_the_watch_on_spikes_knows_the_run():
    from onestage.training.recipe import build
    from onestage.training.recipe.stages import legs

    recipe = build({"data": "x", "epochs": 20, "schedule.warmup": 30, "guard.sigmas": 6, "augmentation.rest": 0.25})
    spikes = spikes_for(recipe, legs(recipe, 10)[0])
    assert (spikes.sigmas, spikes.warmup, spikes.calm_epoch) == (6, 30, 15)


def test_counts_and_spikes_go_on_from_their_state():
    run = warmed(Unclamped(), guard=Guard(nan="skip", most=1))
    assert run(batch(GOOD, GOOD, GOOD, (ZERO,)), update=False) == "skip"
    kept = json.loads(json.dumps(run.recorder.state()))
    again = bench(Unclamped(), guard=Guard(nan="skip", most=1))
    again.recorder.restore(kept)
    assert again.recorder.state() == run.recorder.state()
    assert again(batch(GOOD, GOOD, GOOD, (ZERO,)), update=False) == "stop"
    back = bench(Unclamped(), guard=Guard(nan="skip", most=1))
    back.recorder.restore(kept, counts=False)
    assert back(batch(GOOD, GOOD, GOOD, (ZERO,)), update=False) == "skip"


def test_a_diagnosis_that_fails_never_hides_the_first_error(tmp_path):
    class Furious(Unclamped):
        def assign(self, truths):
            raise RuntimeError("no")

        terms = prior_losses = assign

    run = bench(Furious(), folder=tmp_path / "recorder")
    assert run(batch(GOOD, (GOOD[0], ZERO))) == "stop"
    assert "photos/im1.jpg" in run.recorder.error().message
    file = tmp_path / "file"
    file.write_text("in the way")
    blocked = bench(Unclamped(), folder=file)
    assert blocked(batch(GOOD, (GOOD[0], ZERO))) == "stop"
    assert "could not be written" in str(blocked.recorder.error())


def test_the_report_is_json_and_markdown(tmp_path):
    run = bench(Unclamped(), folder=tmp_path)
    for _ in range(3):
        run(batch(*good(2)), update=False)
    run(batch(GOOD, (GOOD[0], ZERO)))
    report = json.loads((tmp_path / "step-000004.json").read_text())
    assert report["incident"] == "nan-loss"
    assert report["causes"][0]["prior"]["level"] == 0
    assert [row["step"] for row in report["before"]] == [1, 2, 3]
    assert report["batch"]["images"][1]["file"] == "photos/im1.jpg"
    assert report["batch"]["images"][1]["loss"]["box"] in ("inf", "-inf", "nan")
    text = (tmp_path / "step-000004.md").read_text()
    for part in (
        "photos/im1.jpg",
        "ln(w / prior w) / 0.2 = -inf",
        "onestage replay RUN --step 4",
        "## The step and the 3 before it",
    ):
        assert part in text
    finding = run.recorder.take_findings()[0].as_dict()
    assert finding["code"] == "broken-box"
    assert finding["where"]["step"] == 4
    assert run.recorder.take_findings() == []


def test_every_code_has_its_heading_on_the_page_of_findings():
    import onestage.training.recorder as package

    source = "".join(path.read_text() for path in Path(package.__file__).parent.glob("*.py"))
    codes = set(re.findall(r'(?:Cause|Fault)\(\s*"([a-z-]+)"', source)) | set(re.findall(r'code="([a-z-]+)"', source))
    assert {"broken-box", "amp-overflow", "nan-loss", "spike", "crowd-batch"} <= codes | {"nan-loss"}
    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
    headings = set(re.findall(r"^### (.+)$", page.partition("## Incidents")[2], re.MULTILINE))
    assert codes <= headings


# Healthy steps


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("ssd-")])
def test_healthy_steps_raise_nothing(name):
    run = bench(lite(name), lr=1e-4)
    for step in range(20):
        boxes = [GOOD, (), (GOOD[0],), ((0.0, 0.0, SIZE, SIZE), (3.0, 3, 5, 5))]
        assert run(batch(*boxes, seed=step), update=step % 5 == 0) == "go"
    assert run.recorder.incidents == []
    assert run.recorder.take_findings() == []
    assert len(run.recorder.ring.entries) == 20


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd300", "ssd512"])
def test_healthy_steps_of_the_large_models_raise_nothing(name):
    from onestage.models import build

    torch.manual_seed(0)
    detector = build(name, 3).train()
    run = bench(detector, lr=1e-4)
    assert run(batch(GOOD, size=detector.size)) == "go"
    assert run.recorder.incidents == []
