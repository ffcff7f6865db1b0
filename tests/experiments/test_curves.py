"""Each rule is raised by the curve that has its fault, not by the near miss, and by no healthy run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_curves import BATCH, FACTS, PER_EPOCH, STEPS, Planted, Row, changed, healthy, judged

from onestage.experiments.curve_rules import RULES, Facts, chance
from onestage.experiments.curves import Watch, findings_of, line, replayed
from onestage.experiments.run import Run

GIB = 2**30


def stuck_at(level: float, until: int = STEPS) -> Callable[[int, Row], None]:
    """The class loss as in the notes of lxg2015/faceboxes: 2.2617 to 2.2638, whatever the batch."""
    rng = np.random.default_rng(5)

    def change(step: int, row: Row) -> None:
        if 60 < step <= until:
            row["raw"]["cls"] = level * (1 + rng.normal(0, 0.001))

    return change


def levels(step: int, row: Row, shares: list[float]) -> None:
    row["positives_per_level"] = [int(row["positives"] * share) for share in shares]


def set_raw(row: Row, **values: float) -> None:
    row["raw"] = {**row["raw"], **values}
    row["weighted"] = dict(row["raw"])


def one_part(weight: float, box_weight: float = 1.0) -> Planted:
    def change(step: int, row: Row) -> None:
        row["weighted"] = {"cls": row["raw"]["cls"] * weight, "box": row["raw"]["box"] * box_weight}

    return changed(change)


def norms(part: str, value: float, facts: dict[str, Any] | None = None) -> Planted:
    def change(step: int, row: Row) -> None:
        if step >= 300 and "grad_norms" in row:
            row["grad_norms"][part] = value

    return changed(change, **(facts or {}))


def rows_with(key: str, value: Callable[[int, Row], Any], **facts: Any) -> Planted:
    def change(step: int, row: Row) -> None:
        row[key] = value(step, row)

    return changed(change, **facts)


def lr_of(rate: Callable[[int], float], **facts: Any) -> Planted:
    return rows_with("lr", lambda step, row: {"heads": rate(step), "backbone": rate(step) / 10}, **facts)


def bytes_of(key: str, value: Callable[[int], float], **facts: Any) -> Planted:
    def change(step: int, row: Row) -> None:
        if step % 10 == 0:
            row[key] = int(value(step))

    return changed(change, **facts)


def scores(values: list[float], val: float | None = None, risen: float = 1.0) -> Planted:
    def change(i: int, row: Row) -> None:
        row["metrics/mAP50-95"] = values[min(i, len(values) - 1)]
        for key in [key for key in row if key.startswith("val/")]:
            row[key] = row["train/" + key[4:]] * (1.3 if val is None else val) * risen**i

    return judged(change)


def answers(table: dict[str, dict[str, int]]) -> Planted:
    return judged(lambda i, row: row.update(confusion=table))


def alike(noise: float) -> Planted:
    rng = np.random.default_rng(3)

    def change(step: int, row: Row) -> None:
        if step > 200:
            row["positives"], row["positives_per_level"] = 960, [480, 288, 144, 38, 10, 0]
            set_raw(row, cls=1.5 * float(np.exp(rng.normal(0, noise))), box=0.7)

    return changed(change)


def flat(step: int, row: Row, fall: float) -> None:
    set_raw(row, cls=5.0 * (1 - fall * step / STEPS), box=3.0)


def no_learning(i: int, row: Row) -> None:
    row["metrics/mAP50"] = row["metrics/mAP50-95"] = 0.0


def plateau(since: int, train_falls: float, constant: bool = True) -> Planted:
    """A score that stands from evaluation `since` on, in a run that is planned to go on for twice as long."""

    def change(i: int, row: Row) -> None:
        row["metrics/mAP50-95"] = 0.1 * min(i, since) + 0.001 * (i % 2)
        for part in ("cls", "box"):
            row[f"train/{part}"] = 2.0 * train_falls**i
            row[f"val/{part}"] = 2.5 * train_falls**i

    return changed(
        lambda step, row: row.update(lr={"heads": 1e-3}), change, epochs=80, evaluations=12, constant=constant
    )


def lost(key: str, share: float, until: int = STEPS) -> Planted:
    """Rows that count truths which nothing learns, as YOLO's losses do."""

    def change(step: int, row: Row) -> None:
        row.update(dict.fromkeys(("unanswered", "rewritten", "capped"), 0.0))
        row[key] = share * row["truths"] if step <= until else 0.0

    return changed(change)


PLANTED: dict[str, list[Callable[[], Planted]]] = {
    "chance-level": [
        lambda: changed(stuck_at(2.2627)),
        lambda: changed(stuck_at(2.2493 + np.log(4)), classes=4, class_counts=(5.0, 5.0, 5.0, 5.0)),
        lambda: changed(stuck_at(0.7), class_loss="bce", chance=0.6931, start=0.6931),
    ],
    "high-start": [lambda: changed(lambda step, row: set_raw(row, cls=400.0) if step <= 5 else None)],
    "loss-flat": [lambda: changed(lambda step, row: flat(step, row, 0.01))],
    "one-part-loss": [lambda: one_part(20.0), lambda: one_part(1.0, 0.0)],
    "empty-level": [
        lambda: changed(lambda step, row: levels(step, row, [0.5, 0.0, 0.5])),
        lambda: changed(lambda step, row: levels(step, row, [0.5, 0.4, 0.1 * (step < 200)])),
        lambda: changed(lambda step, row: levels(step, row, [0.8, 0.2, 0.0]), anchored=True),
        lambda: changed(lambda step, row: levels(step, row, [0.8, 0.2, 0.0]), level_shares=(0.8, 0.17, 0.03)),
    ],
    "truths-unanswered": [lambda: lost("unanswered", 0.022), lambda: lost("unanswered", 0.005)],
    "truths-rewritten": [lambda: lost("rewritten", 0.06)],
    "truths-capped": [lambda: lost("capped", 0.118)],  # what max=90 takes from VisDrone
    "empty-batches": [
        lambda: changed(lambda step, row: row.update(positives=0, positives_per_level=[0] * 6) if step > 300 else None)
    ],
    "batches-alike": [lambda: alike(0.001)],
    "positives-jump": [
        lambda: rows_with("positives", lambda step, row: row["positives"] * (5 if step > 500 else 1)),
        lambda: rows_with("positives", lambda step, row: row["positives"] // (5 if step > 500 else 1)),
    ],
    "dead-part": [
        lambda: norms("neck", 0.0),
        lambda: rows_with("grad_norm", lambda step, row: 0.0 if step > 400 else row["grad_norm"]),
    ],
    "clipped-gradient": [lambda: rows_with("grad_norm", lambda step, row: 4 * row["grad_norm"])],
    "skipped-steps": [lambda: rows_with("skipped", lambda step, row: step % 15 == 0)],
    "scale-falling": [lambda: rows_with("scale", lambda step, row: 65536.0 / 2 ** (step // 40))],
    "lr-at-nothing": [
        lambda: lr_of(lambda step: 1e-3 if step < 300 else 1e-7, legs=(300,)),  # diary 004, schemes 07 and 08
        lambda: lr_of(lambda step: 1e-7),
        lambda: lr_of(lambda step: 1e-3 if step < 200 else 0.0),
    ],
    "frozen-moved": [lambda: rows_with("moved", lambda step, row: {"backbone.stem": 1e-4 if step > 100 else 0.0})],
    "data-wait": [lambda: rows_with("seconds", lambda step, row: {"data": 0.6, "step": 0.9})],
    "memory-grows": [
        lambda: bytes_of("memory", lambda step: 2 * GIB + step * 4 * 2**20),
        lambda: bytes_of("memory", lambda step: 6 * GIB + step * 2**20, steps=20_000),
    ],
    "disk-fills": [
        lambda: bytes_of("disk_free", lambda step: 50 * GIB - step * 40 * 2**20, steps=2000),
        lambda: bytes_of("disk_free", lambda step: 0.1 * GIB),
    ],
    "val-better": [lambda: scores([0.5], val=0.4)],
    "overfit": [
        lambda: scores([0.2, 0.4, 0.5, 0.45, 0.42, 0.4, 0.38, 0.36], risen=1.05),  # diary 004: best at 3 of 13
        lambda: scores([0.2, 0.4, 0.5, 0.495, 0.49], val=3.5, risen=1.2),
    ],
    "plateau": [lambda: plateau(3, 1.0)],
    "zero-score": [lambda: judged(no_learning)],
    "val-not-finite": [lambda: judged(lambda i, row: row.update({"val/cls": "nan"}))],
    "classes-exchanged": [
        lambda: answers({"car": {"van": 90, "car": 5}, "van": {"car": 70, "van": 1}, "bus": {"bus": 40}}),
        lambda: answers({"a": {"b": 50}, "b": {"c": 50}, "c": {"d": 50, "c": 2}, "d": {"a": 30}}),
    ],
}
NEAR_MISSES: dict[str, list[Callable[[], Planted]]] = {
    "chance-level": [
        lambda: changed(stuck_at(2.2493 * 1.05)),
        lambda: changed(stuck_at(2.2493, until=120)),
        lambda: changed(lambda step, row: set_raw(row, cls=2.5 - 0.8 * step / STEPS)),  # passes slowly
        lambda: changed(stuck_at(2.2627), classes=4),  # classes are not counted: no level is known
    ],
    "high-start": [lambda: changed(lambda step, row: set_raw(row, cls=17.85))],  # diary 003
    "loss-flat": [
        lambda: changed(lambda step, row: flat(step, row, 0.2)),
        lambda: changed(lambda step, row: flat(step, row, 0.0), fresh=False),
    ],
    "one-part-loss": [lambda: one_part(5.0), lambda: changed(lambda step, row: set_raw(row, cls=200.0))],
    "empty-level": [
        lambda: changed(lambda step, row: levels(step, row, [0.8, 0.2, 0.0])),  # no objects of that size
        lambda: changed(lambda step, row: levels(step, row, [0.9, 0.1 * (step % 60 == 0), 0.1])),  # rare
        lambda: changed(lambda step, row: levels(step, row, [0.3 * (row["epoch"] < 20), 0.4, 0.3]), calm_epoch=20),
        lambda: changed(lambda step, row: levels(step, row, [0.8, 0.2, 0.0]), level_shares=(0.8, 0.195, 0.005)),
        lambda: changed(lambda step, row: levels(step, row, [0.95, 0.05, 0.1 * (step % 20 == 7)]), anchored=True),
    ],
    "truths-unanswered": [
        lambda: lost("unanswered", 0.0),
        lambda: changed(lambda step, row: row.update(unanswered="?")),
    ],
    "truths-rewritten": [lambda: lost("rewritten", 0.05), lambda: lost("rewritten", 0.5, until=1)],
    "truths-capped": [lambda: lost("capped", 0.0)],
    "empty-batches": [
        lambda: changed(lambda step, row: row.update(positives=0, positives_per_level=[0] * 6) if step % 15 else None)
    ],
    "batches-alike": [lambda: alike(0.05)],
    "positives-jump": [
        lambda: rows_with("positives", lambda step, row: row["positives"] * (2 if step > 500 else 1)),
        lambda: rows_with("positives", lambda step, row: row["positives"] * (5 if 500 < step < 540 else 1)),
        lambda: rows_with("positives", lambda step, row: row["positives"] * (5 if row["epoch"] >= 34 else 1)),
    ],
    "dead-part": [lambda: norms("neck", 1e-6), lambda: norms("neck", 0.0, {"frozen": ("neck", "backbone.stem")})],
    "clipped-gradient": [lambda: rows_with("grad_norm", lambda step, row: 2 * row["grad_norm"])],
    "skipped-steps": [lambda: rows_with("skipped", lambda step, row: step < 12 or step % 40 == 0)],
    "scale-falling": [
        lambda: rows_with("scale", lambda step, row: 65536.0 / 2 ** (step // 100)),
        lambda: rows_with("scale", lambda step, row: 2.0**24 / 2 ** min(step, 12)),  # finding its place
    ],
    "lr-at-nothing": [
        lambda: lr_of(lambda step: 1e-3 * (1 - step / STEPS) ** 4),
        lambda: lr_of(lambda step: 1e-3 * 0.1 ** (step > 530) * 0.1 ** (step > 660)),
        lambda: lr_of(lambda step: 1e-3 if step < 300 else 1e-5, legs=(300,)),
        lambda: lr_of(lambda step: 1e-3 * (step / 1000) ** 4 if step < 1000 else 1e-3),  # burn-in
        lambda: lr_of(lambda step: 1e-3 * float(np.random.default_rng(step).random()) ** 4),  # darknet's "random"
    ],
    "frozen-moved": [lambda: rows_with("moved", lambda step, row: {"backbone.stem": 0.0})],
    "data-wait": [
        lambda: rows_with("seconds", lambda step, row: {"data": 0.3, "step": 0.9}),
        lambda: rows_with("seconds", lambda step, row: {"data": 0.006, "step": 0.009}),  # nobody waits for that
        lambda: rows_with("seconds", lambda step, row: {"data": 60.0 * (step == 400), "step": 0.9}),
        lambda: rows_with("seconds", lambda step, row: {"data": 2.0 * (step <= 20), "step": 0.9}),  # fills the cache
    ],
    "memory-grows": [
        lambda: bytes_of("memory", lambda step: GIB * (2 + min(step, 300) / 100)),
        lambda: bytes_of("memory", lambda step: GIB * (2 + (step % 200) / 200)),
    ],
    "disk-fills": [lambda: bytes_of("disk_free", lambda step: 50 * GIB - step * 20 * 2**20)],
    "val-better": [lambda: scores([0.5], val=0.6)],
    "overfit": [
        lambda: scores([0.2, 0.4, 0.5, 0.48, 0.49, 0.47, 0.48, 0.49], risen=1.05),
        lambda: scores([0.2, 0.4, 0.5, 0.51, 0.52], val=3.5, risen=1.2),
        lambda: scores([0.2, 0.4, 0.5, 0.3, 0.49, 0.5]),
    ],
    "plateau": [lambda: plateau(3, 0.95), lambda: plateau(8, 1.0), lambda: plateau(3, 1.0, constant=False)],
    "zero-score": [lambda: judged(lambda i, row: no_learning(i, row) if i < 2 else None)],
    "val-not-finite": [lambda: judged(lambda i, row: row.update({"val/cls": "nan"}) if i == 3 else None)],
    "classes-exchanged": [
        lambda: answers({"car": {"van": 90, "car": 5}, "van": {"van": 70, "car": 9}}),  # a confusion, diary 001
        lambda: answers({"car": {"van": 8}, "van": {"car": 9}}),
        lambda: answers({"car": {"car": 50}, "van": {"": 70, "van": 9}}),
    ],
}


def run(planted: Planted) -> list[Any]:
    return replayed(planted.facts, planted.steps, planted.results)


def cases(table: dict[str, list[Callable[[], Planted]]]) -> list[Any]:
    return [pytest.param(code, make, id=f"{code}-{i}") for code in table for i, make in enumerate(table[code])]


def test_every_rule_has_a_plant_and_a_near_miss() -> None:
    assert set(PLANTED) == set(NEAR_MISSES) == set(RULES)


@pytest.mark.parametrize(("code", "make"), cases(PLANTED))
def test_a_planted_fault_is_found_once_and_nothing_else(code: str, make: Callable[[], Planted]) -> None:
    found = run(make())
    assert [finding.code for finding in found] == [code], [line(finding) for finding in found]
    assert found[0].consequence
    assert found[0].remedy
    assert found[0].evidence
    assert "\n" not in line(found[0])
    assert line(found[0]).endswith(f"(docs/findings.md#{code})")
    json.dumps(found[0].as_dict(), allow_nan=False)


@pytest.mark.parametrize(("code", "make"), cases(NEAR_MISSES))
def test_a_near_miss_is_not_found(code: str, make: Callable[[], Planted]) -> None:
    found = run(make())
    assert code not in [finding.code for finding in found], [line(finding) for finding in found]


@pytest.mark.parametrize("kind", ["ssd", "yolo"])
@pytest.mark.parametrize("noise", [0.02, 0.12, 0.4])
@pytest.mark.parametrize("seed", range(3))
def test_healthy_runs_raise_nothing(kind: str, noise: float, seed: int) -> None:
    facts = replace(FACTS, class_loss=None, anchored=True) if kind == "yolo" else FACTS
    found = run(healthy(800, seed, kind, noise, facts))
    assert [line(finding) for finding in found] == []


def test_an_empty_level_is_named_by_what_it_finds_whatever_the_order() -> None:
    """darknet's levels come largest first: there the third is the finest."""
    words = ("stride 32, large objects", "stride 16, medium objects", "stride 8, small objects")
    facts: dict[str, Any] = {"level_words": words, "level_strides": (32.0, 16.0, 8.0)}
    found = run(changed(lambda step, row: levels(step, row, [0.8, 0.2, 0.0]), anchored=True, **facts))
    assert found[0].what.startswith("stride 8, small objects: level 3 of 3 has had no positive for 20 steps: ")
    assert found[0].where.step == PER_EPOCH  # after an epoch: no truth fits it
    found = run(changed(lambda step, row: levels(step, row, [0.1, 0.0, 0.8]), **facts))
    assert "finer levels had " in found[0].what
    finer, coarser = map(int, re.findall(r"had (\d+) and coarser ones (\d+)", found[0].what)[0])
    assert finer > 7 * coarser


def test_truths_that_nothing_learns_are_told_once_with_their_number() -> None:
    few, many = (run(lost("unanswered", share))[0] for share in (0.005, 0.022))
    assert (few.severity, many.severity) == ("note", "warning")
    assert many.what == "88 of 4,000 truths (2.2 %) have no anchor that answers for them"
    assert many.where.step == PER_EPOCH
    assert run(lost("capped", 0.118))[0].what.startswith("472 of 4,000 truths (11.8 %) lie beyond the largest number")


def test_it_is_said_again_only_after_it_was_cured() -> None:
    def change(step: int, row: Row) -> None:
        if 200 <= step < 300 or 500 <= step < 600:
            row.update(positives=0, positives_per_level=[0] * 6)

    found = run(changed(change))
    assert [(finding.code, finding.where.step) for finding in found] == [("empty-batches", 219), ("empty-batches", 519)]


@settings(max_examples=12)
@given(st.sampled_from(sorted(PLANTED)), st.integers(1, STEPS - 1))
def test_a_restart_from_saved_state_finds_the_same(code: str, at: int) -> None:
    planted = PLANTED[code][0]()
    watch, found = Watch(planted.facts), []
    results = {row["step"]: row for row in planted.results}
    for row in planted.steps:
        found += watch.step(row)
        if row["step"] in results:
            found += watch.evaluated(results[row["step"]])
        if row["step"] == at:
            watch = Watch.from_dict(planted.facts, json.loads(json.dumps(watch.to_dict(), allow_nan=False)))
    assert found == run(planted)
    assert [finding.code for finding in found] == [code]


@settings(max_examples=12)
@given(st.sampled_from(sorted(set(PLANTED) - {"one-part-loss"})), st.floats(0.4, 3), st.floats(0.4, 3))
def test_the_weights_of_the_loss_change_no_finding(code: str, cls: float, box: float) -> None:
    planted = PLANTED[code][0]()
    expected = [(finding.code, finding.where.step) for finding in run(planted)]
    for row in planted.steps:
        row["weighted"] = {"cls": cls * row["raw"]["cls"], "box": box * row["raw"]["box"]}
        row["loss"] = sum(row["weighted"].values())
    for row in planted.results:
        for key in [key for key in row if key.endswith(("/cls", "/box")) and not isinstance(row[key], str)]:
            row[key] *= cls if key.endswith("cls") else box
    assert [(finding.code, finding.where.step) for finding in run(planted)] == expected


@pytest.mark.parametrize("row", [
    {}, {"step": None, "raw": None, "positives": "nan", "images": 0, "lr": None, "seconds": None, "loss": "inf"},
    {"step": 5, "raw": {"cls": "nan", "box": 0.0}, "positives": 0, "images": 0, "positives_per_level": [], "lr": {}},
    {"step": 20, "positives_per_level": None, "grad_norms": None, "moved": None, "memory": "?", "scale": 0, "lr": 0.0},
])  # fmt: skip
def test_rows_of_other_tools_and_damaged_rows_are_survived(row: Row) -> None:
    watch = Watch(FACTS)
    for _ in range(60):
        watch.step(row)
        watch.evaluated(row)


def test_a_step_costs_less_than_fifty_microseconds() -> None:
    planted = healthy()
    best = min(_seconds(planted) for _ in range(3))
    assert best / len(planted.steps) < 50e-6


def _seconds(planted: Planted) -> float:
    watch = Watch(planted.facts)
    start = time.process_time()  # others may keep the machine busy
    for row in planted.steps:
        watch.step(row)
    return time.process_time() - start


def test_memory_is_constant() -> None:
    planted = healthy()
    watch = Watch(planted.facts)
    sizes = []
    for turn in range(3):
        for row in planted.steps:
            watch.step({**row, "step": row["step"] + turn * STEPS})
        sizes.append(len(json.dumps(watch.to_dict())))
    assert max(sizes) < 20_000
    assert abs(sizes[2] - sizes[1]) < 1500


# ---- chance levels and facts


def test_chance_levels_are_those_of_the_diaries() -> None:
    # by hand: r = 3 gives 2.2493, r = 7 gives 3.0143, an untrained head (1 + r) ln 2 = 2.7726 at r = 3;
    # section X: 003 starts at 17.85 against (1 + 3) ln 21 = 12.18.
    assert chance.mined(3) == pytest.approx(2.2493, abs=5e-5)
    assert chance.mined(7) == pytest.approx(3.0143, abs=2e-4)
    assert chance.untrained(3, 1) == pytest.approx(2.7726, abs=5e-5)
    assert chance.untrained(3, 20) == pytest.approx(12.18, abs=5e-3)
    assert chance.mined(3, (7, 7)) == pytest.approx(2.2493 + np.log(2), abs=5e-5)
    assert chance.mined(0) == 0.0


def test_the_chance_level_is_what_a_constant_softmax_can_reach() -> None:
    counts, ratio = np.array([3.0, 5.0, 12.0]), 3.0
    shares = np.concatenate([[ratio], counts / counts.sum()]) / (1 + ratio)
    rng = np.random.default_rng(0)
    best = -(1 + ratio) * (shares * np.log(shares)).sum()
    assert chance.mined(ratio, counts.tolist()) == pytest.approx(best)
    for other in rng.dirichlet(np.ones(4), 50):
        assert -(1 + ratio) * (shares * np.log(other)).sum() >= best


@pytest.mark.parametrize(("negatives", "gamma", "alpha"), [(580.0, 2.0, 0.25), (30.0, 2.0, 0.25), (580.0, 0.0, 0.5)])
def test_the_focal_chance_level_is_the_least_over_constant_scores(negatives: float, gamma: float, alpha: float) -> None:
    p = np.linspace(1e-6, 1 - 1e-6, 200_001)
    loss = alpha * (1 - p) ** gamma * -np.log(p) + negatives * (1 - alpha) * p**gamma * -np.log1p(-p)
    assert chance.focal(negatives, [1.0], gamma, alpha) == pytest.approx(loss.min(), rel=0.01)


def test_facts_come_from_a_recipe_and_run_json(tmp_path: Path) -> None:
    recipe = {
        "model": "ssd300", "classes": ["a", "b"], "epochs": 20, "batch": 10, "weights": None, "clip": 5.0,
        "options": {"negatives": 7}, "optimiser": {"name": "sgd"}, "schedule": {"warmup": "2 epochs"},
        "augmentation": {"rest": 0.15}, "validation": {"every": 3, "metric": "mAP50"}, "freeze": ["stem"],
        "stages": [{"epochs": 5}, {"epochs": 15}],
    }  # fmt: skip
    folder = Run.create(tmp_path, "one")
    folder.write_recipe(recipe)
    level = {"stride": 8, "grid": [40, 40], "anchors": [[10, 20]], "size": "small"}
    folder.update(data={"train": {"images": 205}}, model={"levels": [level]})
    folder.write_metrics({"rows": [{"class": "b", "n": 30, "value": 0.5}, {"class": None, "n": 30, "value": 0.5}]})
    facts = Facts.of_run(folder)
    assert facts == Facts(
        class_counts=(0.0, 30.0), classes=2, class_loss="softmax-ohem", ratio=7.0, optimiser="sgd", steps=400,
        steps_per_epoch=20, epochs=20, batch=10, images=205, warmup=40, clip=5.0, metric="mAP50", evaluations=7,
        calm_epoch=17, legs=(100,), frozen=("stem",), class_names=("a", "b"),
        level_words=("stride 8, small objects (10x20 px)",), level_strides=(8.0,),
    )  # fmt: skip
    assert facts.chance_level(10) == pytest.approx(chance.mined(7))
    folder.update(parents=["another"])
    assert not Facts.of_run(folder).fresh
    assert Facts.of({}, {}) == Facts(class_loss="softmax-ohem", evaluations=0)


def test_a_run_folder_tells_its_findings(tmp_path: Path) -> None:
    planted = PLANTED["empty-batches"][0]()
    folder = Run.create(tmp_path, "one")
    folder.write_recipe({"epochs": 40, "batch": BATCH, "model": "ssd300", "freeze": ["backbone.stem"]})
    for row in planted.steps[:400]:
        folder.append_step(row)
    assert [finding.code for finding in findings_of(folder)] == ["empty-batches"]


# ---- the page


def test_every_rule_has_one_heading_on_the_page_and_its_section_no_other() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "findings.md").read_text(encoding="utf-8")
    _, _, rest = page.partition("\n## Live findings\n")
    live = re.findall(r"^### (\S+)$", re.split(r"\n## ", rest)[0], re.MULTILINE)
    assert live
    assert set(live) <= set(RULES)
    headings = re.findall(r"^### (\S+)$", page, re.MULTILINE)
    assert {code: headings.count(code) for code in RULES} == dict.fromkeys(RULES, 1)
    for code in RULES:  # lr-at-nothing stands where it is foreseen
        section = re.split(r"\n##", page.partition(f"\n### {code}\n")[2])[0]
        for part in ("\nThreshold: ", f"(docs/findings.md#{code})\n```"):
            assert part in section, f"{code}: {part!r} is missing"
