"""VOC's files judged from end to end give what the development kits of 2007 and 2012 gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from voc_sets import CLASSES, KINDS, SEEDS, write_set

from onestage.analysis.judging import JudgedFile, judge_detections

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "voc" / "devkit.json").read_text())


def judged(folder: Path, *protocols: str) -> JudgedFile:
    return judge_detections(folder / "results", folder, protocols=protocols, intervals=False, allow_loss=True)


def values(found: JudgedFile, protocol: str, classes: tuple[str, ...] = CLASSES) -> list[float]:
    there = {row.class_name: row.value for row in found.evaluation.metrics if row.name == "AP50"
             and row.protocol == protocol}  # fmt: skip
    return [there.get(name, float("nan")) for name in classes]


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_numbers_of_the_development_kit(tmp_path: Path, kind: str) -> None:
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        write_set(folder, KINDS[kind], seed)
        found = judged(folder, "voc07", "voc10", "voc07+1")
        for protocol, year in (("voc07", "2007"), ("voc07+1", "2007"), ("voc10", "2012")):
            official = np.array(GOLDEN[f"{kind}/{seed}"][year], np.float64)
            ours = np.array(values(found, protocol))
            # A class of which every truth is difficult has no AP here; the kit of 2007 says 0, that of 2012 nothing.
            official[np.isnan(ours) & (official == 0)] = np.nan
            np.testing.assert_allclose(ours, official, rtol=0, atol=1e-12)


def test_golden_numbers_are_of_every_set() -> None:
    assert list(GOLDEN) == [f"{kind}/{seed}" for kind in KINDS for seed in SEEDS]
    given = [value for found in GOLDEN.values() for year in found.values() for value in year if value is not None]
    assert len(given) > 330
    assert len({round(value, 9) for value in given}) > 200


def test_the_order_of_the_files_decides_between_equal_scores(tmp_path: Path) -> None:
    write_set(tmp_path / "a", KINDS["tied shuffled"], 0)
    write_set(tmp_path / "b", KINDS["tied shuffled"], 0)
    for file in (tmp_path / "b" / "results").iterdir():
        file.write_text("".join(sorted(file.read_text().splitlines(keepends=True))))
    first, second = (values(judged(tmp_path / name, "voc10"), "voc10") for name in "ab")
    assert first != pytest.approx(second, abs=1e-6)


def test_files_from_zero_are_taken_alike(tmp_path: Path) -> None:
    write_set(tmp_path, KINDS["from zero"], 0)
    exact = "".join(
        f"{path.stem} 0.5 {box[0]} {box[1]} {box[2]} {box[3]}\n"
        for path in sorted((tmp_path / "Annotations").iterdir())
        for box in boxes_of(path, "cat")
    )
    for file in (tmp_path / "results").iterdir():
        file.write_text(exact if file.stem.endswith("_cat") else "")
    found = judged(tmp_path, "coco", "voc10")
    assert {"zero-based"} == {"zero-based"} & {finding.code for finding in found.findings}
    assert found.evaluation.metrics.value("AP75", "coco", "cat") == 1
    boxes = next(iter(found.detections.values())).boxes
    assert boxes[0].tolist() in [box.tolist() for truth in found.dataset.truths.values() for box in truth.boxes]


def boxes_of(path: Path, name: str) -> list[list[str]]:
    rows = [row for row in path.read_text().split("<object>")[1:] if f"<name>{name}<" in row]
    tags = ("xmin", "ymin", "xmax", "ymax")
    return [[row.split(f"<{tag}>")[1].split("<")[0] for tag in tags] for row in rows]


def test_only_boxes_that_are_edges_get_a_pixel(tmp_path: Path) -> None:
    """lufficc/SSD adds a pixel to the far edges of its detections and to truths read as xmin - 1 … xmax - 1."""
    write_set(tmp_path, KINDS["plain"], 1)
    rows = []
    for file in sorted((tmp_path / "results").iterdir()):
        for line in file.read_text().splitlines():
            name, score, *box = line.split()
            x1, y1, x2, y2 = (float(side) - 1 for side in box)  # closed pixels from 0, passed off as edges
            rows.append({"image_id": name, "category_id": file.stem.partition("_test_")[2],
                         "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)})  # fmt: skip
    (tmp_path / "found.json").write_text(json.dumps(rows))
    found = judge_detections(tmp_path / "found.json", tmp_path, protocols=["voc07+1", "voc10+1"], intervals=False)
    for protocol, year in (("voc07+1", "2007"), ("voc10+1", "2012")):
        np.testing.assert_allclose(values(found, protocol), GOLDEN["plain/1"][year], rtol=0, atol=1e-12)
