"""Which number a name means that a run may be steered by, and which truths cannot give it."""

from __future__ import annotations

import numpy as np
import pytest

from onestage.errors import DataError, UsageError
from onestage.evaluation import PROTOCOLS, evaluate
from onestage.evaluation.steering import refuse_undefined, score_names, spelt, steering_score
from onestage.records import Annotations, Detections

FACES = {0: Annotations(np.array([[0.0, 0, 9, 9]]), np.array([0]), extra={
    "easy": np.array([False]), "medium": np.array([True]), "hard": np.array([True])})}  # fmt: skip


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_steered_by_what_it_reports(protocol: str) -> None:
    """The names come from a set without truths; those of a real one must be the same."""
    levels = {level: np.array([True]) for level in ("easy", "medium", "hard")}
    ellipse = np.array([[20.0, 20, 0, 20, 20]])
    truth = Annotations(np.array([[0.0, 0, 40, 40]]), np.array([0]), extra={"ellipse": ellipse, **levels})
    found = {0: Detections(truth.boxes, truth.labels, np.array([0.9]))}
    rows = evaluate({0: truth}, found, ("face",), (protocol,), False, sizes={0: (90, 90)}).metrics
    names = {row.name for row in rows if row.class_name is None and row.protocol == protocol}
    assert set(score_names(protocol)) <= names
    assert PROTOCOLS[protocol].headline in score_names(protocol)
    assert steering_score(protocol) == (protocol, PROTOCOLS[protocol].headline)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("mAP50", "mAP50"), ("mAP50-95", "mAP50-95"), ("widerface", "widerface/APhard"),
        ("widerface/easy", "widerface/APeasy"), ("widerface/APmedium", "widerface/APmedium"),
        ("fddb", "fddb/disc@1000"), ("fddb/cont@2000", "fddb/cont@2000"), ("voc10@0.75", "voc10@0.75/mAP75"),
        ("visdrone/AP50", "visdrone/AP50"), ("coco/s", "coco/APs"),
    ],
)  # fmt: skip
def test_spelt_in_full(words: str, meant: str) -> None:
    assert spelt(words) == meant
    assert spelt(meant) == meant
    assert steering_score(words) == steering_score(meant)


@pytest.mark.parametrize("words", ["mAP", "wider/easy", "fddb/disc", "darknet/FN", "/", "", "voc10@2/mAP50"])
def test_unknown_words_are_refused(words: str) -> None:
    with pytest.raises(UsageError, match="no such score"):
        spelt(words)


@pytest.mark.parametrize(("words", "near"), [("APhard", "widerface/APhard"), ("disc@500", "fddb/disc@500")])
def test_a_score_without_its_protocol_is_told_with_it(words: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{near}'"):
        spelt(words)


def test_a_truth_that_cannot_give_the_score_is_refused() -> None:
    refuse_undefined("widerface/medium", FACES, ("face",))
    with pytest.raises(DataError, match="APeasy is undefined: no truth of the 1 images"):
        refuse_undefined("widerface/easy", FACES, ("face",))
    with pytest.raises(DataError, match="cannot be judged by"):
        refuse_undefined("fddb", FACES, ("face",))
    with pytest.raises(DataError, match="mAP50 is undefined"):
        refuse_undefined("voc10/mAP50", {0: Annotations.empty()}, ("face",))
