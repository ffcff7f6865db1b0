"""The page of a run: what it says, that it escapes, needs nothing else, and shows what is left of a broken run."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_factory import bccd_images, decode, make_run, painted_images

from onestage.errors import UsageError
from onestage.experiments.run import Run
from onestage.experiments.truth import write_truth
from onestage.report import page, template
from onestage.report.page import render, write_report

EVIL = '<b onclick="x">&'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    return make_run(folder, painted_images(folder / "images"), ("cell", EVIL), steps=200)


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy that a test may damage."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Run(tmp_path / "copy")


@pytest.fixture(scope="module")
def text(finished: Run) -> str:
    return render(finished, decode)


class _Parts(HTMLParser):
    """Collects what a browser would load or run, and the visible words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for key, value in attrs if key in ("src", "href", "data", "srcset", "action")]
        assert not [key for key, _ in attrs if key.startswith("on")], attrs
        if tag in ("style", "script"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open:
            self.words += data


def test_it_tells_the_whole_run(text: str) -> None:
    words = _Parts(text).words
    assert re.search(r"mAP50 0\.\d\d \(95 % 0\.\d\d–0\.\d\d\) on 14 images, \d+ objects\.", words)
    for part in (
        "ssd-lite0-demo-001", "finished", "4,213,764", "6 min 42 s", "Best at epoch 17 of 20; the last evaluation gave",
        "train.epochs", "asked", "torch", "efficientnet-lite0, ImageNet", "zero-area",
        "Annotations/BloodImage_00016.xml:31",
        "Waiting for data", "voc07 mAP50", "segment 1",
    ):  # fmt: skip
        assert part in words, part


def test_it_says_what_the_scores_do_not(text: str) -> None:
    words = _Parts(text).words
    for part in ("F1 by score", "Calibration", "Expected calibration error 0.", "What is taken for what",
                 "on background", "Best score and calibration of each class"):  # fmt: skip
        assert part in words, part
    assert {"f1", "reliability", "confusion"} <= set(re.findall(r'data-figure="(\w+)"', text))


def test_results_of_earlier_versions_have_a_page_too(run: Run) -> None:
    old = {key: value for key, value in run.metrics.items() if key not in ("calibration", "confusion", "confidence")}
    run.write_metrics(old)
    text = render(run, decode)
    assert "What is taken for what" not in text
    assert 'data-figure="curves"' in text


def test_the_recipe_marks_what_was_asked_for(text: str) -> None:
    asked = re.findall(r'<tr class="asked"><th scope="row">([^<]+)</th>', text)
    assert asked == ["model", "data", "train.epochs"]


def test_twelve_pictures_worst_first(text: str) -> None:
    assert [link[:23] for link in _Parts(text).links] == ["data:image/jpeg;base64,"] * 12
    kinds = re.findall(r'<figure class="(\w+)">', text)
    assert kinds == ["worst"] * 4 + ["typical"] * 4 + ["best"] * 4


def test_it_needs_nothing_else(text: str) -> None:
    parts = _Parts(text)
    assert all(link.startswith("data:") for link in parts.links)
    assert not {"link", "iframe", "object", "embed", "base"} & set(parts.tags)
    assert "default-src 'none'" in text
    css = template.part("page.css") + template.part("page.js")
    assert "http" not in css
    assert "@import" not in css
    assert "url(" not in css
    assert len(text.encode()) < 4_000_000


def test_names_are_text_never_markup(text: str) -> None:
    assert EVIL not in text
    assert EVIL in _Parts(text).words
    assert "b" not in _Parts(text).tags or "<b onclick" not in text
    figures = re.findall(r'<script type="application/json" data-figure="\w+">(.*?)</script>', text, re.DOTALL)
    assert len(figures) == 8
    assert not [figure for figure in figures if "<" in figure]
    assert any("\\u0026lt;b" in figure for figure in figures)  # plotly reads a little HTML itself


def test_the_page_of_a_run_is_always_the_same(finished: Run, text: str) -> None:
    assert render(finished, decode) == text


def test_it_is_written_into_the_folder(run: Run) -> None:
    assert write_report(run) == run.folder / "report.html"
    assert run.report_path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_picture_that_is_gone_leaves_its_name(run: Run, tmp_path: Path) -> None:
    images = [(image, truth) for image, truth in painted_images(tmp_path / "own", 3)]
    images[1][0].path.unlink()
    images[2][0].path.write_bytes(b"no picture")
    write_truth(run, [image for image, _ in images], {image.id: truth for image, truth in images}, ("cell", "b"))
    text = render(run, decode)
    assert text.count("cannot be read any more") == 2
    assert text.count("data:image/jpeg") == 1


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = Run.create(tmp_path, name="new")
    words = _Parts(render(run, decode)).words
    assert "Still running, not judged yet: no step done so far." in words
    assert "Validation images" not in words


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("failed", "Failed after 2 steps, and was never judged."),
        ("diverged", "Left the finite numbers after 2 steps, and was never judged."),
        ("running", "Still running, not judged yet: 2 steps."),
    ],
)
def test_a_run_without_a_judgement(tmp_path: Path, status: str, sentence: str) -> None:
    run = Run.create(tmp_path, name="x")
    run.append_step({"step": 1, "loss": 2.0, "raw": {"cls": 2.0}, "lr": {"all": 0.1}})
    run.append_step({"step": 2, "loss": float("nan"), "raw": {"cls": float("inf")}, "lr": {"all": 0.1}})
    run.update(reason="loss became nan at step 2")
    run.finish(status)  # type: ignore[arg-type]
    text = render(run, decode)
    words = _Parts(text).words
    assert sentence in words
    assert "loss became nan at step 2" in words
    assert "not finite" in text
    assert "NaN" not in "".join(re.findall(r'data-figure="\w+">(.*?)</script>', text, re.DOTALL))


FILES = ("asked.yaml", "recipe.yaml", "steps.jsonl", "results.csv", "predictions.json", "metrics.json", "findings.json",
         "validation.json")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, b"", b"{", b"[3]", b'{"rows": [{}], "images": 3}', b"\xff\xfe\x00"])
def test_any_file_may_be_missing_or_damaged(
    run: Run, name: str, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "library", lambda: "")
    path = run.folder / name
    path.unlink() if content is None else path.write_bytes(content)
    text = render(run, lambda _: (_ for _ in ()).throw(OSError()))
    assert "ssd-lite0" in text
    if content == b"{" and name not in ("steps.jsonl", "results.csv"):
        assert f"{name} cannot be read" in _Parts(text).words
    if content == b"{" and name == "steps.jsonl":
        assert "steps.jsonl: 1 line(s) could not be read" in _Parts(text).words


def test_without_run_json_there_is_no_page(run: Run) -> None:
    run.info_path.unlink()
    with pytest.raises(UsageError, match=r"run\.json cannot be read"):
        write_report(run, decode)


def test_one_class_is_called_by_its_name(tmp_path: Path) -> None:
    run = make_run(tmp_path, painted_images(tmp_path / "i", 4, classes=1), ("tree",), steps=20)
    text = render(run, decode)
    assert re.search(r"on 4 images, \d+ trees\.", text)
    assert 'data-figure="bars"' not in text


def test_the_legend_names_only_the_classes_on_the_pictures(tmp_path: Path) -> None:
    classes = [f"kind {i}" for i in range(80)]
    text = render(make_run(tmp_path, painted_images(tmp_path / "i", 4, classes=2), classes, steps=20), decode)
    named = set(re.findall(r'<i class="box" style="border-color:[^"]*"></i>(kind \d+)', text))
    drawn = {classes[row["category_id"] - 1] for row in Run(tmp_path / "ssd-lite0-demo-001").predictions
             if row["score"] >= 0.4}  # fmt: skip
    assert named == drawn
    assert 0 < len(named) < 80


def test_a_run_that_found_nothing_has_no_operating_point(tmp_path: Path) -> None:
    run = make_run(tmp_path, painted_images(tmp_path / "i", 4), ("a", "b"), steps=20)
    run.write_metrics({**run.metrics, "operating_point": {"score": None, "chosen": "best mean F1"}})
    text = render(run, decode)
    assert "There is no operating point: nothing was found." in text
    assert "Precision, recall and F1 at score" not in text


def test_why_a_run_failed_stands_on_its_page(tmp_path: Path) -> None:
    run = make_run(tmp_path, painted_images(tmp_path / "i", 4), ("a", "b"), steps=20)
    run.finish("failed", "the disk is full: x could not be written.")
    assert '<p class="remark">the disk is full: x could not be written.</p>' in render(run, decode)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_it_offline_without_a_complaint(tmp_path: Path, shared: Path, width: int) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("no chromium on this machine")
    path = write_report(make_run(tmp_path, bccd_images(shared / "bccd"), ("RBC", "WBC", "Platelets")), decode)
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = opened.new_page(viewport={"width": width, "height": 900})
        heard: list[str] = []
        tab.on("console", lambda message: heard.append(message.text))
        tab.on("pageerror", lambda error: heard.append(str(error)))
        tab.on(
            "request",
            lambda request: heard.append(request.url) if not request.url.startswith(("data:", path.as_uri())) else None,
        )
        tab.goto(path.as_uri())
        tab.wait_for_function("document.documentElement.dataset.figures === '8'", timeout=30_000)
        assert heard == []
        assert tab.locator(".figure .main-svg").count() >= 8
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
        opened.close()
