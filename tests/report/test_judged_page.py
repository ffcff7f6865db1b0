"""The page of judged detections without a run: what it says and draws, for any protocol and any names."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_detail_plots import metrics

from onestage.evaluation import evaluate
from onestage.records import Annotations, Detections
from onestage.report.judged_page import judged_page, write_judged_page

EVIL = '<b onclick="x">&'
CURVE = {"recall": [0.1, 0.9], "precision": [1.0, 0.5], "scores": [0.9, 0.1]}
ROC = {"false_positives": [0, 5], "true_positive_rate": [0.2, 0.9], "scores": [0.9, 0.1]}
FINDING = {"code": "nan-score", "severity": "error", "where": {"file": "d.json", "line": 31}, "what": "score is NaN"}


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return metrics(3)


def figures(text: str) -> set[str]:
    return set(re.findall(r'data-figure="(\w+)"', text))


def test_it_tells_everything_and_needs_nothing(content: dict[str, Any], tmp_path: Path) -> None:
    path = write_judged_page(
        tmp_path / "page.html", content, ["c0", "c1", "c2"], "out/theirs.json", "bccd, test", findings=[FINDING]
    )
    text = path.read_text(encoding="utf-8")
    for part in ("<h1>theirs.json</h1>", "mAP50 0.", "on 8 images, 48 objects", "bccd, test", "voc10", "What is taken",
                 "Every score over all classes", "d.json:31", "score is NaN", "95 %"):  # fmt: skip
        assert part in text, part
    assert figures(text) == {"curves", "bars", "f1", "reliability", "confusion"}
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="(?!data:)', text)


def test_protocols_with_curves_of_their_own_are_drawn(content: dict[str, Any]) -> None:
    rows = [{"protocol": "widerface", "name": "AP easy", "class": None, "value": 0.912, "n": 7211, "interval": None}]
    own = {
        **content, "protocols": ["widerface", "fddb"], "rows": rows,
        "curves": {**content["curves"], "widerface": {"easy": CURVE, "hard": CURVE}, "fddb": {"discrete": ROC}},
    }  # fmt: skip
    text = judged_page(own, ["face"], "detections", "WIDER FACE, val")
    assert "widerface AP easy 0.912 on 8 images." in text
    assert "widerface: precision and recall" in text
    assert "fddb: found against false" in text
    assert {"own0recall", "own1found"} <= figures(text)


@pytest.mark.parametrize(
    ("protocols", "sentence"),
    [
        (("voc07", "coco"), r"mAP50 1\.00 \(95 % 0\.61–1\.00\) on 6 images, 6 cats\."),
        (("coco", "voc10"), r"coco mAP50-95 1\.000 \(95 % 0\.610–1\.000\) on 6 images\."),
        (("visdrone",), r"visdrone AP 1\.000 \(95 % 0\.610–1\.000\) on 6 images\."),
    ],
)
def test_the_verdict_is_what_the_first_protocol_is_known_by(protocols: tuple[str, ...], sentence: str) -> None:
    truth = {i: Annotations([[0, 0, 40, 40]], [0]) for i in range(6)}
    found = {i: Detections(t.boxes, t.labels, [0.9]) for i, t in truth.items()}
    judged = evaluate(truth, found, ["cat"], protocols, sizes=dict.fromkeys(truth, (90, 90)), resamples=20)
    text = judged_page(judged.as_dict(), ["cat"], "d.json", "data")
    assert re.search(sentence, text)
    assert ("Precision, recall and F1 at score" in text) == (protocols != ("visdrone",))


def test_names_are_text(content: dict[str, Any]) -> None:
    truth = {0: Annotations([[0, 0, 9, 9]], [0])}
    found = {0: Detections([[0, 0, 9, 9]], [0], [0.9])}
    judged = evaluate(truth, found, [EVIL], resamples=5).as_dict()
    text = judged_page(judged, [EVIL], EVIL, EVIL, findings=[{**FINDING, "what": EVIL}])
    assert EVIL not in text


@pytest.mark.parametrize("classes", [1, 80])
def test_few_and_many_classes(classes: int) -> None:
    text = judged_page(metrics(classes), [f"c{k}" for k in range(classes)], "d.json", "data")
    assert ("The table of 80 classes" in text) == (classes == 80)
    assert "confusion" in figures(text)
    assert ('data-figure="bars"' in text) == (classes == 80)


def test_nothing_found_and_scores_beyond_one_have_a_page() -> None:
    truth = {0: Annotations([[0, 0, 9, 9]], [0])}
    text = judged_page(evaluate(truth, {}, ["a"], resamples=5).as_dict(), ["a"], "d.json", "data")
    assert "There is no operating point: nothing was found." in text or "nothing was found" in text
    wide = evaluate(truth, {0: Detections([[0, 0, 9, 9]], [0], [7.5])}, ["a"], resamples=5).as_dict()
    assert "No calibration: scores run from 7.5 to 7.5" in judged_page(wide, ["a"], "d.json", "data")
    assert "Nothing could be judged." in judged_page({}, [], "d.json", "data")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("classes", [1, 3, 80])
def test_a_browser_draws_it_without_a_complaint(tmp_path: Path, width: int, classes: int) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no chromium on this machine")
    path = write_judged_page(tmp_path / "p.html", metrics(classes), [f"c{k}" for k in range(classes)], "d.json", "data")
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = opened.new_page(viewport={"width": width, "height": 900})
        heard: list[str] = []
        tab.on("console", lambda message: heard.append(message.text))
        tab.on("pageerror", lambda error: heard.append(str(error)))
        tab.goto(path.as_uri())
        tab.wait_for_function("document.documentElement.dataset.figures !== undefined", timeout=30_000)
        assert heard == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        opened.close()
