"""Detection files through the command line: official scores, ids and names, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Command, environment

# As the official tool printed them; ../shared/data/README.md.
COCO100 = {
    "mAP50-95": 0.504581, "mAP50": 0.696973, "mAP75": 0.572982, "APs": 0.585626, "APm": 0.519400, "APl": 0.501398,
    "AR1": 0.386813, "AR10": 0.593680, "AR100": 0.595353, "ARs": 0.639811, "ARm": 0.566421, "ARl": 0.564291,
}  # fmt: skip


def test_known_scores_come_out_without_torch_and_images(shared: Path, tmp_path: Path) -> None:
    folder = shared / "known_scores" / "coco100"
    words = [
        "val", str(folder / "instances_val2014_fakebbox100_results.json"),
        f"data={folder / 'instances_val2014_100.json'}", "protocol=coco", "--json",
    ]  # fmt: skip
    code = (
        f"import sys\nfrom onestage.cli import run\ncode = run({words!r})\n"
        "assert 'torch' not in sys.modules\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"] if row["class"] is None}
    for name, value in COCO100.items():
        assert f"{rows[name]['value']:.6f}" == f"{value:.6f}", name
        assert rows[name]["n"] > 0
        assert rows[name]["interval"][0] < rows[name]["interval"][1]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Two images, two classes whose ids have gaps and are not in order."""
    document = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 3, "file_name": "deep/b.jpg", "width": 100, "height": 80},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
            {"id": 2, "image_id": 3, "category_id": 12, "bbox": [30, 30, 20, 20], "area": 400, "iscrowd": 0},
        ],
        "categories": [{"id": 90, "name": "dog"}, {"id": 12, "name": "cat"}],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document))
    return path


def detections(folder: Path, rows: Any) -> Path:
    path = folder / "detections.json"
    path.write_text(rows if isinstance(rows, str) else json.dumps(rows))
    return path


def row(image: Any, category: Any, box: list[float], score: Any = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


DOG, CAT = [10, 10, 20, 20], [30, 30, 20, 20]


@pytest.mark.parametrize(("first", "second"), [(7, 3), ("7", "3"), ("a.jpg", "b.jpg"), ("a", "b")])
def test_images_by_id_name_or_stem(here: Command, truth: Path, first: Any, second: Any) -> None:
    path = detections(truth.parent, [row(first, 90, DOG), row(second, 12, CAT)])
    answer = here("val", path, f"data={truth}", "--json")
    assert answer.code == 0, answer.err
    assert scores(answer.json) == {"cat": 1.0, "dog": 1.0}


def scores(said: dict[str, Any]) -> dict[str, float]:
    return {r["class"]: r["value"] for r in said["rows"] if r["name"] == "AP50" and r["protocol"] == "voc10"}


def test_categories_as_places_of_the_class_list(here: Command, truth: Path) -> None:
    path = detections(truth.parent, [row(7, 2, DOG), row(3, 1, CAT)])
    assert scores(here("val", path, f"data={truth}", "categories=labels", "--json").json) == {"cat": 1.0, "dog": 1.0}
    assert here("val", path, f"data={truth}").code == 3  # 1 and 2 are no ids of this file


def test_everything_wrong_is_listed(here: Command, truth: Path) -> None:
    rows = [
        row(7, 90, DOG), row(8, 90, DOG), row(8, 90, DOG), row(7, 91, DOG), row(7, 90, DOG, float("nan")),
        row(7, 90, DOG, 1.5), row(7, 90, [1, 2, 3]), row(7, 90, [1, 2, -3, 4]), {"image_id": 7}, 5,
    ]  # fmt: skip
    answer = here("val", detections(truth.parent, rows), f"data={truth}")
    assert answer.code == 3
    assert "9 of 10 detections cannot be judged" in answer.err
    for said in (
        "row 1 and 1 more: image 8 is not in the data", "row 3: category_id 91 is none of 12, 90", "row 4: score nan",
        "row 5: score 1.5", "row 6: bbox [1, 2, 3]", "row 7: bbox [1, 2, -3, 4]", "row 8: no category_id, bbox, score",
        "row 9: expected an object",
    ):  # fmt: skip
        assert said in answer.err


@pytest.mark.parametrize("content", ['{"a": 1}', "[1,", "", "\x00", "null"])
def test_what_is_no_results_list(here: Command, truth: Path, content: str) -> None:
    answer = here("val", detections(truth.parent, content), f"data={truth}")
    assert (answer.code, answer.out) == (3, "")
    assert "detections.json" in answer.err


def test_an_empty_list_scores_nothing(here: Command, truth: Path) -> None:
    answer = here("val", detections(truth.parent, []), f"data={truth}", "--json")
    assert answer.code == 0, answer.err
    assert scores(answer.json) == {"cat": 0.0, "dog": 0.0}


def test_keys_without_effect_and_bad_values(here: Command, truth: Path) -> None:
    path = detections(truth.parent, [])
    assert "iou has no effect" in here("val", path, f"data={truth}", "iou=0.5").err
    answer = here("val", path, f"data={truth}", "score=high", "at=2")
    assert answer.code == 2
    assert "score: expected a number from 0 to 1, got 'high'" in answer.err
    assert "at: expected" in answer.err
    assert here("val", path).code == 2
    assert "did you mean 'coco'" in here("val", path, f"data={truth}", "protocol=cocoo").err


def test_metrics_go_to_a_file(here: Command, truth: Path) -> None:
    path = detections(truth.parent, [row(7, 90, DOG)])
    out = truth.parent / "metrics.json"
    assert here("val", path, f"data={truth}", "protocol=voc07,voc10", "--out", out).code == 0
    kept = json.loads(out.read_text())
    assert kept["protocols"] == ["voc07", "voc10"]
    assert "voc10@0.5" in kept["curves"]


def test_a_voc_folder_is_judged_on_any_set(here: Command, folder: Path) -> None:
    path = detections(folder.parent, [row("disc00", 1, [0, 0, 5, 5])])
    whole = here("val", path, f"data={folder}", "split=all", "--json")
    assert (whole.code, whole.json["n_images"]) == (0, 12)
    assert here("val", path, f"data={folder}", "split=vall").code == 3
