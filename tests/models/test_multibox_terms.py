"""What the terms of a prior say of boxes that no loss should see."""

from __future__ import annotations

import math

import pytest
import torch

from onestage.boxes.matching import BACKGROUND, IGNORED
from onestage.models.detector import Raw, Truth
from onestage.models.multibox import MultiboxOptions, prior_losses
from onestage.models.multibox_terms import multibox_terms

PRIOR = torch.tensor([20.0, 30.0, 40.0, 10.0])
L1, GIOU = MultiboxOptions(), MultiboxOptions(class_loss="focal", box_loss="giou")


def terms_of(box, options=L1, offsets=(0.0, 0, 0, 0), label=1, row=0):
    truth = Truth(torch.tensor([box]).float(), torch.tensor([label]), torch.tensor([False]))
    logits = torch.tensor([0.5, -1.0, 2.0])
    return multibox_terms(torch.tensor(offsets), logits, PRIOR, truth, row, options)


def test_targets_by_hand():
    terms = terms_of((10.0, 25, 30, 45))
    assert terms["(cx - prior cx) / prior w / 0.1"] == 0
    assert terms["(cy - prior cy) / prior h / 0.1"] == 5
    assert terms["ln(w / prior w) / 0.2"] == pytest.approx(math.log(0.5) * 5)
    assert terms["ln(h / prior h) / 0.2"] == pytest.approx(math.log(2) * 5)
    assert terms["-ln p(class 1)"] == pytest.approx(math.log(math.exp(0.5 - 2) + math.exp(-1.0 - 2) + 1))


def test_a_zero_width_is_a_logarithm_of_0_and_an_inverted_one_of_a_negative_number():
    zero, inverted, nan = terms_of((10, 25, 10, 45)), terms_of((30, 25, 10, 45)), terms_of((math.nan, 25, 30, 45))
    assert zero["ln(w / prior w) / 0.2"] == -math.inf
    assert math.isnan(inverted["ln(w / prior w) / 0.2"])
    assert math.isnan(nan["w"])
    assert math.isfinite(zero["ln(h / prior h) / 0.2"])


def test_exp_shows_its_overflow_and_the_decoded_side_its_bound():
    terms = terms_of((10, 25, 30, 45), GIOU, offsets=(0.0, 0, 500, 0))
    assert terms["exp(0.2 offset w)"] == math.inf
    assert terms["decoded w (at most 62.5 prior w)"] == pytest.approx(62.5 * 40)
    assert math.isfinite(terms["1 - GIoU"])


def test_background_and_ignored_priors_have_no_box():
    background = terms_of((10, 25, 30, 45), row=BACKGROUND)
    assert "w" not in background
    assert "-ln p(background)" in background
    assert set(terms_of((10, 25, 30, 45), row=IGNORED)) == {"prior cx", "prior cy", "prior w", "prior h"}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("row", [0, BACKGROUND])
def test_class_terms_are_those_of_the_loss_with_smoothing_too(row, smoothing):
    raw = Raw(torch.zeros(1, 1, 4), torch.tensor([[[0.5, -1.0, 2.0]]]))
    box = (0.0, 25, 40, 35) if row == 0 else (500.0, 500, 510, 510)
    truth = Truth(torch.tensor([box]), torch.tensor([1]), torch.tensor([False]))
    for options in (
        MultiboxOptions(label_smoothing=smoothing),
        MultiboxOptions(class_loss="focal", label_smoothing=smoothing),
    ):
        losses, match = prior_losses(raw, [truth], PRIOR[None], options)
        assert int(match) == row
        terms = multibox_terms(raw.offsets[0, 0], raw.logits[0, 0], PRIOR, truth, row, options)
        focal = [value for key, value in terms.items() if "focal term" in key]
        last = list(terms.values())[-1]  # of the softmax: with the smoothing
        assert (sum(focal) if focal else last) == pytest.approx(float(losses["cls"]), rel=1e-5)


@pytest.mark.parametrize("options", [L1, GIOU])
def test_a_label_that_is_no_class_is_nan_not_a_crash(options):
    assert math.isnan(terms_of((10, 25, 30, 45), options, label=7)["-ln p(class 7)"])
