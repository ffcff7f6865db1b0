"""Comparisons of runs and detection files in Python: verdicts, arms of several seeds, what is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from judged_runs import Set

import onestage
from onestage.analysis.comparing import class_score, compare
from onestage.errors import DataError, UsageError


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weak-1 to -3 and strong-1 to -3, on forty images; `twin` is weak-1 again."""
    root = tmp_path_factory.mktemp("runs")
    made = Set.made()
    for seed in (1, 2, 3):
        made.run(root, f"weak-{seed}", made.found(0.4, seed))
        made.run(root, f"strong-{seed}", made.found(0.9, seed))
    made.run(root, "twin", made.found(0.4, 1))
    made.run(root, "alike", made.found(0.4, 9))
    return root


@pytest.fixture(autouse=True)
def _runs_lie_there(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTAGE_RUNS", str(runs))


def test_a_clear_difference() -> None:
    found = onestage.compare("weak-1", "strong-1")
    pair = found.pairs[0]
    assert pair.outcome == "better"
    row = pair.headline
    assert (row.name, found.protocol, found.n_images, found.n_truths, found.floor) == ("mAP50-95", "coco", 40, 80, 0.01)
    assert row.interval is not None
    low, high = (100 * end for end in row.interval)
    assert found.verdict == (
        f"strong-1 is better by {100 * row.value:.1f} mAP50-95 (95 % {low:.1f} to {high:.1f}) on 40 images"
    )
    assert "the smallest difference this set could have shown" in pair.smallest
    assert "one seed per arm" in found.notes[0]
    assert [row.class_name for row in pair.per_class()] in (["cat", "dog"], ["dog", "cat"])
    assert all(row.images == row.n == 40 for row in pair.per_class())


def test_the_other_way_round_it_is_worse_by_as_much() -> None:
    better, worse = compare("weak-1", "strong-1").pairs[0], compare("strong-1", "weak-1").pairs[0]
    assert worse.outcome == "worse"
    assert worse.verdict == better.verdict.replace("strong-1 is better", "weak-1 is worse")
    assert worse.headline.value == -better.headline.value


def test_no_clear_difference_says_how_many_images_it_takes() -> None:
    pair = compare("weak-1", "alike", see=0.02).pairs[0]
    assert pair.outcome == "not distinguishable"
    assert pair.verdict.startswith("not distinguishable: alike minus weak-1 is ")
    assert "; to see 2.0 you need about " in pair.verdict
    assert pair.images_needed is not None
    assert pair.images_needed > 400
    more = compare("weak-1", "alike", see=0.04).pairs[0]
    assert more.images_needed == pytest.approx(pair.images_needed / 4, rel=0.1)


def test_the_same_detections() -> None:
    pair = compare("weak-1", "twin").pairs[0]
    assert pair.outcome == "identical"
    assert pair.verdict == "no difference: the detections of twin are those of weak-1 on all 40 images"
    assert all(row.value == 0 for row in pair.rows if row.too_few != "no truth")
    assert compare("weak-1", "weak-1").pairs[0].outcome == "identical"


def test_seeds_make_an_arm() -> None:
    found = compare("weak-1,weak-2,weak-3", ["strong-1", "strong-2", "strong-3"])
    assert dict(found.seeds) == {
        "weak": ("weak-1", "weak-2", "weak-3"), "strong": ("strong-1", "strong-2", "strong-3"),
    }  # fmt: skip
    assert found.verdict.startswith("strong is better by ")
    assert found.verdict.endswith(" on 40 images, 3 and 3 seeds")
    assert found.notes == ()
    single = [compare(f"weak-{k}", f"strong-{k}").pairs[0].headline for k in (1, 2, 3)]
    mean = sum(row.value for row in single) / 3
    assert found.pairs[0].headline.value == pytest.approx(mean)
    mixed = compare("weak-1", "strong-1,strong-2,strong-3")
    assert "weak-1: one seed only" in mixed.notes[0]
    assert mixed.pairs[0].headline.error > found.pairs[0].headline.error


def test_more_than_two_arms_are_each_beside_the_first() -> None:
    found = compare("weak-1", "strong-1", "alike", names=["base", "new", "other"])
    assert [(pair.a, pair.b, pair.outcome) for pair in found.pairs] == [
        ("base", "new", "better"), ("base", "other", "not distinguishable"),
    ]  # fmt: skip
    assert found.pairs[0].verdict.startswith("new is better than base by ")
    p = [pair.headline.p for pair in found.pairs]
    assert found.pairs[0].holm == pytest.approx(2 * p[0])  # type: ignore[operator]
    assert found.pairs[1].holm == pytest.approx(p[1])
    assert found.verdict.count("\n") == 1


def test_detection_files_by_data_or_by_a_runs_truth(tmp_path: Path) -> None:
    made = Set.made()
    truth = made.coco_file(tmp_path / "truth.json")
    a = made.detection_file(tmp_path / "a.json", made.found(0.4, 1))
    b = made.detection_file(tmp_path / "b.json", made.found(0.9, 1))
    found = compare(a, b, data=truth)
    assert found.verdict.startswith("b is better by ")
    assert found.pairs[0].headline.value == compare("weak-1", "strong-1").pairs[0].headline.value
    mixed = compare("weak-1", b, data=truth, floor=0.01)
    assert mixed.pairs[0].headline.value == found.pairs[0].headline.value
    rows = json.loads(b.read_text())
    b.write_text(json.dumps([{**row, "category_id": row["category_id"] // 30} for row in rows]))
    assert compare("weak-1", b, floor=0.01).pairs[0].headline.value == found.pairs[0].headline.value


def test_a_predictions_file_of_a_run_is_the_run(runs: Path) -> None:
    found = compare(runs / "weak-1" / "predictions.json", onestage.Run.open("strong-1"))
    assert list(found.seeds) == ["weak-1", "strong-1"]


def test_protocol_and_score_may_be_chosen() -> None:
    found = compare("weak-1", "strong-1", protocol="voc07")
    assert (found.protocol, found.score) == ("voc07", "mAP50")
    assert compare("weak-1", "strong-1", score="AR100").pairs[0].headline.name == "AR100"
    assert [class_score(name) for name in ("mAP50-95", "mAP50", "AR1")] == ["AP50-95", "AP50", "AR1"]


def test_names_may_be_one_text_with_commas() -> None:
    assert list(compare("weak-1", "strong-1", names="old, new", resamples=100).seeds) == ["old", "new"]


def test_few_images_tell_nothing(tmp_path: Path) -> None:
    made = Set.made(9)
    a, b = (made.run(tmp_path, name, made.found(share)) for name, share in (("a", 0.1), ("b", 1.0)))
    pair = compare(a, b).pairs[0]
    assert pair.outcome == "too few to tell"
    assert pair.verdict == "too few to tell b from a: the score rests on 9 images, and at least 10 are needed"
    assert pair.as_dict()["headline"]["p"] is None


def test_the_record_is_json_and_reproducible() -> None:
    first, second = (compare("weak-1", "alike", resamples=200, seed=3).as_dict() for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert compare("weak-1", "alike", resamples=200, seed=4).as_dict() != first


@pytest.mark.parametrize(
    ("arms", "more", "said"),
    [
        (["weak-1"], {}, "two arms are needed"),
        (["weak-1", "strng-1"], {}, "did you mean 'strong-1'"),
        (["weak-1", "strong-1,strong-1"], {}, "stands twice in one arm"),
        (["weak-1", "strong-1"], {"names": ["a"]}, "expected 2 different names"),
        (["weak-1", "strong-1"], {"protocol": "coko"}, "did you mean 'coco'"),
        (["weak-1", "strong-1"], {"score": "mAP51"}, "has no such score"),
        (["weak-1", "strong-1"], {"level": 95, "resamples": 3}, "level: expected"),
        (["weak-1", ","], {}, "an arm is empty"),
        (["weak-1", []], {}, "an arm is empty"),
        (["weak-1", "strong-1"], {"seed": -1}, "seed: expected a whole number from 0"),
    ],
)
def test_what_cannot_be_compared(arms: list[str], more: dict, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        compare(*arms, **more)
    assert said in str(caught.value)


def test_files_without_truth_and_files_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[]")
    with pytest.raises(UsageError, match="data=… is missing"):
        compare(path, path)
    with pytest.raises(DataError, match="no such file"):
        compare("weak-1", tmp_path / "b.json")


def test_a_run_that_was_never_judged(tmp_path: Path) -> None:
    run = onestage.Run.create(tmp_path, "young")
    with pytest.raises(DataError, match="it is running and was never judged"):
        compare("weak-1", run)


def test_comparing_needs_no_torch(runs: Path) -> None:
    code = (
        "import sys, onestage\nfound = onestage.compare('weak-1', 'strong-1', resamples=100)\n"
        "assert 'torch' not in sys.modules\nprint(found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("strong-1 is better")
