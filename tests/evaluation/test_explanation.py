"""Gaps between protocols: steps add up to them, each stop is what the protocols' own code gives, nothing is hidden."""

from __future__ import annotations

import json
import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onestage import evaluation
from onestage.errors import UsageError
from onestage.evaluation import PROTOCOLS, Protocol, lay_out
from onestage.evaluation.darknet import darknet
from onestage.evaluation.explanation import Explanation, explain
from onestage.evaluation.judgement import Judgement
from onestage.evaluation.rules import RULES_OF, Judge, Rules, way
from onestage.evaluation.voc import voc10
from onestage.records import Annotations, Detections

CHAINED = tuple(RULES_OF)
CLASSES = ["a", "b", "c", "absent"]
Truths = dict[int | str, Annotations]
Found = dict[int | str, Detections]
BOX = np.array([[10.0, 10, 50, 50]])


def random_set(seed: int, images: int = 6) -> tuple[Truths, Found]:
    rng = np.random.default_rng(seed)
    truths: Truths = {}
    found: Found = {}
    for image in range(images):
        n = int(rng.integers(0, 7))
        corner = rng.integers(0, 60, (n, 2))
        boxes = np.c_[corner, corner + rng.integers(8, 40, (n, 2))].astype(float)
        labels = rng.integers(0, 3, n)
        marks = [rng.random(n) < share for share in (0.2, 0.1, 0.1)]
        truths[image] = Annotations(boxes, labels, *marks)
        near = np.repeat(boxes, 3, 0) + rng.normal(0, 3, (3 * n, 4))
        scores = rng.choice([0.0, 0.004, 0.04, 0.2, 0.3, 0.6, 0.9], 3 * n) + rng.integers(0, 3, 3 * n) * 0.001
        found[image] = Detections(near, np.repeat(labels, 3), scores)
    return truths, found


@settings(max_examples=12)
@given(st.integers(0, 10**9), st.sampled_from(CHAINED))
def test_steps_add_up_to_the_gap_and_end_at_the_protocols_own_number(seed: int, reference: str) -> None:
    truths, found = random_set(seed)
    told = explain(truths, found, CLASSES, protocols=(reference, *CHAINED))
    start = next(a for a in told.accounts if a.protocol == reference).value
    for account in told.accounts:
        assert account.value == pytest.approx(
            PROTOCOLS[account.protocol](lay_out(truths, found, CLASSES)).values()[account.headline, None], nan_ok=True
        )
        assert account.delta == pytest.approx(account.value - start, abs=0, nan_ok=True)
        if math.isnan(account.delta):
            continue
        assert sum(step.delta for step in account.steps) == pytest.approx(account.delta, abs=1e-12)
        assert bool(account.steps) == (RULES_OF[account.protocol] != RULES_OF[reference])
        if account.steps:
            assert account.steps[-1].value == pytest.approx(account.value, abs=1e-12)


@settings(max_examples=6)
@given(st.integers(0, 10**9), st.sampled_from(["voc10", "voc07+1", "voc10@0.3", "voc07@0.75"]))
def test_voc_at_another_iou_has_a_chain_to_the_rest_of_its_family(seed: int, reference: str) -> None:
    truths, found = random_set(seed)
    told = explain(truths, found, CLASSES, protocols=(reference, "voc10@0.75", "voc07+1@0.3", "coco"))
    for account in told.accounts[1:]:
        if account.protocol == "coco" and "@" in reference:
            assert account.steps == ()
            assert account.reason
        elif account.protocol != reference and not math.isnan(account.delta):
            assert account.steps[-1].value == pytest.approx(account.value, abs=1e-12)
            assert sum(step.delta for step in account.steps) == pytest.approx(account.delta, abs=1e-12)


def test_every_way_changes_one_rule_at_a_time() -> None:
    for start, end in permutations(RULES_OF.values(), 2):
        before = start
        for change in way(start, end):
            different = [name for name in vars(before) if getattr(before, name) != getattr(change.rules, name)]
            assert different == [change.rule]
            assert change.why
            before = change.rules
        assert before == end


@settings(max_examples=10)
@given(st.integers(0, 10**9))
def test_every_stop_of_every_way_can_be_judged(seed: int) -> None:
    truths, found = random_set(seed, images=3)
    judge = Judge(lay_out(truths, found, CLASSES))
    for rules in {change.rules for a, b in permutations(RULES_OF.values(), 2) for change in way(a, b)}:
        # A stop whose rules could not be followed (a pixel in COCO's matching, ten IoUs in darknet's) would lie
        assert rules.matching == "coco" or (rules.crowds == "like difficult" and rules.most == 0)
        assert rules.matching == "voc" or rules.pixel == 0
        assert rules.matching == "coco" or len(rules.thresholds) == 1
        assert rules.matching != "coco" or rules.difficult == "counted"
        low, high = judge.tie_range(rules)
        value = judge.value(rules)
        assert math.isnan(value) or low - 1e-12 <= value <= high + 1e-12


def test_ties_range_over_all_orders_of_the_file() -> None:
    # Four detections of one score in four images, two of them right: every order of images, judged by VOC's own code
    right = [True, False, True, False]
    values = []
    for order in permutations(range(4)):
        truths: Truths = {n: Annotations(BOX, [0]) for n in range(4)}
        found: Found = {
            n: Detections(BOX if right[k] else BOX + 100, [0], [0.5]) for n, k in enumerate(order)
        }  # fmt: skip
        values.append(voc10(lay_out(truths, found, ["a"])).values()["mAP50", None])
    low, high = Judge(lay_out(truths, found, ["a"])).tie_range(Rules())
    assert (low, high) == pytest.approx((min(values), max(values)))
    told = explain(truths, found, ["a"], protocols=("voc10",))
    worst, best = told.probes[:2]
    assert told.accounts[0].value + worst.deltas["voc10"] == pytest.approx(low)
    assert told.accounts[0].value + best.deltas["voc10"] == pytest.approx(high)


def step(told: Explanation, protocol: str, rule: str) -> float:
    account = next(a for a in told.accounts if a.protocol == protocol)
    return next(s.delta for s in account.steps if s.rule == rule)


def test_a_set_made_for_one_rule_shows_its_effect_at_that_rule() -> None:
    two = Annotations(np.array([[0.0, 0, 100, 10], [0, 3, 100, 13]]), [0, 0])
    # Both lie nearest to the first truth, the second enough on the second as well
    free: Found = {1: Detections(np.array([[0.0, 0, 100, 10], [0, 1, 100, 11]]), [0, 0], [0.9, 0.8])}
    told = explain({1: two}, free, ["a"])
    assert step(told, "coco", "which truth is hit") == pytest.approx(0.5)
    hard = Annotations(np.r_[BOX, BOX + 100], [0, 0], difficult=[False, True])
    told = explain({1: hard}, {1: Detections(BOX, [0], [0.9])}, ["a"])
    assert step(told, "coco", "difficult truths") == pytest.approx(-0.5)
    told = explain({1: Annotations(BOX, [0])}, {1: Detections(BOX, [0], [0.9])}, ["a", "absent"])
    assert step(told, "darknet", "classes without truths") == pytest.approx(-0.5)
    many = np.r_[np.repeat(BOX + 100, 100, 0), BOX]
    crowded = {1: Detections(many, np.zeros(101, int), np.linspace(0.9, 0.1, 101))}
    told = explain({1: Annotations(BOX, [0])}, crowded, ["a"])
    assert step(told, "coco", "detections per class and image") == pytest.approx(-1 / 101)
    small = Annotations(np.array([[0.0, 0, 4, 4]]), [0])
    told = explain({1: small}, {1: Detections(np.array([[0.0, 0, 4, 1.9]]), [0], [0.9])}, ["a"])
    assert step(told, "voc10+1", "pixel added to each side") == pytest.approx(1.0)


def test_probes_are_the_numbers_of_changed_input() -> None:
    truths, found = random_set(7)
    told = explain(truths, found, CLASSES)
    cut = {image: d.above(0.25) for image, d in found.items()}
    probe = next(p for p in told.probes if p.name == "detections below 0.25 left out")
    for account in told.accounts:
        again = PROTOCOLS[account.protocol](lay_out(truths, cut, CLASSES)).values()[account.headline, None]
        assert probe.deltas[account.protocol] == pytest.approx(again - account.value)
    names = [p.name for p in told.probes]
    assert "ignored areas and crowds unmarked" in names
    assert "difficult truths unmarked" in names
    logits = {image: Detections(d.boxes, d.labels, d.scores * 9 - 5) for image, d in found.items()}
    assert not any(p.name.startswith("detections below") for p in explain(truths, logits, CLASSES).probes)


def odd(name: str, fits: bool) -> Protocol:
    def judge(pool: evaluation.Pool) -> Judgement:
        return Judgement(name, lambda weights: {("score", None): np.full(len(weights), 0.25)}, lambda key: 1, 1, {})

    return Protocol(judge, "score", f"the tool of {name}", lambda pool: None if fits else "no ellipses in the truth")


def test_protocols_without_a_chain_are_shown_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "visdrone", odd("visdrone", True))  # type: ignore[arg-type]
    monkeypatch.setitem(PROTOCOLS, "new", odd("new", True))
    monkeypatch.setitem(PROTOCOLS, "fddb", odd("fddb", False))
    told = explain({1: Annotations(BOX, [0])}, {1: Detections(BOX, [0], [0.9])}, ["a"])
    assert told.reference == "voc10"
    assert told.unfit["fddb"] == "no ellipses in the truth"
    by_name = {account.protocol: account for account in told.accounts}
    assert by_name["visdrone"].delta == -0.75
    assert by_name["visdrone"].reason is not None
    assert "ignored regions" in by_name["visdrone"].reason
    assert "new" in str(by_name["new"].reason)
    assert not by_name["new"].steps
    asked = explain({1: Annotations(BOX, [0])}, {}, ["a"], protocols=("fddb", "new", "voc07"))
    assert asked.reference == "new"
    assert asked.accounts[1].reason is not None
    # Nothing fits: no number, the reason is there
    none = explain({1: Annotations(BOX, [0])}, {}, ["a"], protocols=("fddb",))
    assert none.reference is None
    assert none.accounts == ()


def test_json_and_nothing_to_judge() -> None:
    told = explain({}, {}, [])
    content = json.loads(json.dumps(told.as_dict(), allow_nan=False))
    assert content["n_images"] == 0
    assert {a["protocol"]: a["value"] for a in content["accounts"]}["voc10"] is None
    told = explain({1: Annotations.empty()}, {1: Detections(BOX, [0], [0.9])}, ["a"])
    assert json.loads(json.dumps(told.as_dict(), allow_nan=False))["accounts"][0]["steps"] is not None
    with pytest.raises(UsageError, match="did you mean 'darknet"):
        explain({}, {}, [], protocols=("darknett",))


def test_a_cut_file_is_marked_with_a_bound_for_every_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "new", odd("new", True))
    truths: Truths = {1: Annotations(np.r_[BOX, BOX + 100], [0, 0])}
    told = explain(truths, {1: Detections(BOX, [0], [0.9])}, ["a", "absent"], protocols=("voc10", "darknet", "new"))
    assert "at most 0.5000 of voc10's, 0.2500 of darknet's mean AP" in told.notes[0]
    assert "how much of new could be missing is not known" in told.notes[0]
    # The bound is reached: the missing truth found just below the floor
    whole = explain(truths, {1: Detections(np.r_[BOX, BOX + 100], [0, 0], [0.9, 0.009])}, ["a", "absent"])
    assert {a.protocol: a.value for a in whole.accounts}["darknet"] == 0.25 + 0.25
    assert darknet(lay_out(truths, {}, ["a"])).values()["mAP50", None] == 0.0


@settings(max_examples=12)
@given(st.integers(0, 10**9))
def test_no_detections_below_the_floor_gain_more_than_the_bound(seed: int) -> None:
    truths, found = random_set(seed)
    protocols = ("voc07", "voc10", "coco", "darknet", "darknet101")
    floor = 0.25
    kept = {image: d.above(floor) for image, d in found.items()}
    told = explain(truths, kept, CLASSES, protocols=protocols, score_floor=floor)
    if "at most" not in "".join(told.notes):
        return
    words = told.notes[0].split("at most ")[1].replace(",", "").split()
    bounds = {word[:-2]: float(words[i - 2]) for i, word in enumerate(words) if word.endswith("'s")}
    for cut, whole in zip(told.accounts, explain(truths, found, CLASSES, protocols=protocols).accounts, strict=True):
        assert whole.value - cut.value <= bounds[cut.protocol] + 1e-4
