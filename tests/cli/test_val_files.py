"""Detection files through the command line: official scores, ids and names, and what is refused."""

from __future__ import annotations

import gzip
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
    assert "8 of 10 detections cannot be judged" in answer.err
    for said in (
        "image 8 is not in the data (2 rows, the first [1], [2])", "class 91 is none of 12, 90, [3]", "score nan, [4]",
        "[6]: bbox [1, 2, 3]: expected four numbers", "box (1, 2, -2, 6) ends before it begins, [7]",
        "[8]: no category_id, bbox, score", "[9]: expected an object",
    ):  # fmt: skip
        assert said in answer.err
    assert "1.5" not in answer.err  # a score beyond 1 ranks as any other; it is listed where all is judged


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
    answer = here("val", path, f"data={truth}", "score=high", "at=.nan")
    assert answer.code == 2
    assert "score: expected a number, got 'high'" in answer.err
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


# ---- any format, as a process would be called


@pytest.fixture
def photos(folder: Path) -> tuple[Path, list[tuple[str, list[tuple[float, float, float, float]]]]]:
    """The disc folder and the boxes that its annotations hold, half-open, by image."""
    from onestage.data.one_set import open_set

    dataset = open_set(folder, "all")
    return folder, [(str(i.id), [tuple(b) for b in dataset.annotations[i.id].boxes.tolist()]) for i in dataset.images]


Photos = tuple[Path, list[tuple[str, list[tuple[float, float, float, float]]]]]


def written(kind: str, folder: Path, truth: list[tuple[str, list[tuple[float, float, float, float]]]]) -> Path:
    """The truth itself as detections of score 0.9, as programs of `kind` write them."""
    folder.mkdir()
    rows = [(name, box) for name, boxes in truth for box in boxes]
    if kind == "coco":
        listed = [row(name, 1, [x1, y1, x2 - x1, y2 - y1]) for name, (x1, y1, x2, y2) in rows]
        return detections(folder, listed)
    if kind == "comp4":
        lines = [f"{name} 0.9 {x1 + 1} {y1 + 1} {x2} {y2}" for name, (x1, y1, x2, y2) in rows]
        (folder / "comp4_det_test_disc.txt").write_text("\n".join(lines))
        return folder
    if kind == "csv":
        lines = [f"{name}.jpg;disc;0.9;{x1};{y1};{x2};{y2}" for name, (x1, y1, x2, y2) in rows]
        (folder / "found.csv").write_text("\n".join(["image;class;score;xmin;ymin;xmax;ymax", *lines]))
        return folder / "found.csv"
    if kind == "darknet":
        frames = [
            {"frame_id": at, "filename": f"data/{name}.jpg", "objects": [
                {"class_id": 0, "name": "disc", "confidence": 0.9, "relative_coordinates": {
                    "center_x": (x1 + x2) / 192, "center_y": (y1 + y2) / 192, "width": (x2 - x1) / 96,
                    "height": (y2 - y1) / 96}} for x1, y1, x2, y2 in boxes]}
            for at, (name, boxes) in enumerate(truth)
        ]  # fmt: skip
        (folder / "result.json").write_text(json.dumps(frames))
        return folder / "result.json"
    for name, boxes in truth:
        if kind == "yolo":
            lines = [
                f"0 {(x1 + x2) / 192} {(y1 + y2) / 192} {(x2 - x1) / 96} {(y2 - y1) / 96} 0.9"
                for x1, y1, x2, y2 in boxes
            ]
        else:
            lines = [f"disc 0.9 {x1} {y1} {x2} {y2}" for x1, y1, x2, y2 in boxes]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


KINDS = ("coco", "comp4", "yolo", "darknet", "cartucho", "csv")


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_recognised_and_judged_alike(here: Command, photos: Photos, tmp_path: Path, kind: str) -> None:
    folder, truth = photos
    path = written(kind, tmp_path / kind, truth)
    answer = here("val", path, f"data={folder}", "split=all", "--json")
    assert answer.code == 0, answer.err
    said = answer.json
    assert said["detections"]["format"] == kind
    assert said["detections"]["rows"] == sum(len(boxes) for _, boxes in truth)
    assert {r["name"]: r["value"] for r in said["rows"] if r["class"] is None and r["protocol"] == "coco"}[
        "mAP50-95"
    ] == pytest.approx(1)
    assert {one["code"] for one in said["findings"]} <= {"unsorted", "box-across-border", "column-order"}


def spoilt(kind: str, path: Path, fault: str) -> str:
    """Spoil one row of `path`; returns the code that must be told."""
    file = next(iter(sorted(path.glob("*.txt")))) if path.is_dir() else path
    text = file.read_text()
    score = {"coco": '"score": 0.9', "darknet": '"confidence": 0.9'}.get(kind, "0.9")
    if fault == "nan":
        bad = score.replace("0.9", "NaN" if kind in ("coco", "darknet") else "nan")
        file.write_text(text.replace(score, bad, 1))
        return "not-a-score"
    if fault == "words":
        bad = score.replace("0.9", '"high"') if kind in ("coco", "darknet") else "high"
        file.write_text(text.replace(score, bad, 1))
        return "bad-row"
    if fault == "image" and kind in ("yolo", "cartucho"):
        file.rename(file.with_name("dics00.txt"))
    elif fault == "image":
        file.write_text(text.replace("disc00", "dics00", 1))
    elif fault == "class" and kind == "comp4":
        file.rename(file.with_name("comp4_det_test_dics.txt"))
    elif fault == "class":
        old, new = {"coco": ('_id": 1,', '_id": 7,'), "yolo": ("0 ", "7 ")}.get(kind, ("disc", "dics"))
        old, new = {"csv": (";disc;", ";dics;"), "darknet": ('"disc"', '"dics"')}.get(kind, (old, new))
        file.write_text(text.replace(old, new, 1))
    return "unknown-image" if fault == "image" else "unknown-class"


@pytest.mark.parametrize("fault", ["nan", "words", "image", "class"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_stops_or_is_left_out(
    here: Command, photos: Photos, tmp_path: Path, kind: str, fault: str
) -> None:  # fmt: skip
    folder, truth = photos
    path = written(kind, tmp_path / kind, truth)
    code = spoilt(kind, path, fault)
    said = here("val", path, f"data={folder}", "split=all")
    assert (said.code, said.out) == (3, ""), said.err
    assert f"[{code}]" in said.err
    assert "allow_loss=true" in said.err
    if fault in ("image", "class") and "7" not in said.err.split("[unknown")[0][-60:]:
        assert "did you mean 'disc" in said.err
    whole = fault == "class" and kind == "comp4"
    again = here("val", path, f"data={folder}", "split=all", "allow_loss=true", "--json")
    assert again.code == (3 if whole else 0), again.err
    if not whole:
        listed = {one["code"]: one for one in again.json["findings"]}
        assert listed[code]["severity"] == "error"
        assert listed[code]["evidence"]["count"] >= 1
        assert listed[code]["consequence"] == "the rows are left out"


def test_what_is_odd_is_printed_and_kept(here: Command, truth: Path) -> None:
    path = detections(truth.parent, [row(7, 90, DOG), row(7, 90, DOG), row(7, 90, [200, 0, 5, 5], 0.95)])
    out = truth.parent / "metrics.json"
    answer = here("val", path, f"data={truth}", "--out", out)
    assert answer.code == 0, answer.err
    assert (
        "read    COCO results JSON: 3 detections in 1 image, scores 0.9 to 0.95; 1 of 2 images have none" in answer.out
    )
    for code in ("duplicate-row", "box-outside", "unsorted", "silent-images", "silent-classes"):
        assert f"[{code}]" in answer.out
    kept = json.loads(out.read_text())
    assert {one["code"] for one in kept["findings"]} >= {"duplicate-row", "box-outside"}
    assert kept["detections"] == {**kept["detections"], "format": "coco", "rows": 3}


def test_folders_that_are_no_runs(here: Command, truth: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    said = here("val", empty, f"data={truth}")
    assert said.code == 3
    assert "empty is empty" in said.err
    assert "looked for comp4" in said.err
    (empty / "a.txt").write_text("what is this\n")
    said = here("val", empty, f"data={truth}")
    assert (said.code, "neither a run nor detections" in said.err) == (3, True)
    assert here("val", "nowhere", f"data={truth}").code == 2
    assert here("val", tmp_path / "nowhere.csv", f"data={truth}").code == 3
    assert "did you mean 'yolo'" in here("val", empty, f"data={truth}", "format=yollo").err


def test_torch_is_not_needed_for_any_format(photos: Photos, tmp_path: Path) -> None:
    folder, truth = photos
    words = [
        ["val", str(written(kind, tmp_path / kind, truth)), f"data={folder}", "split=all", "--json"] for kind in KINDS
    ]
    code = (
        f"import sys\nfrom onestage.cli import run\nassert not any([run(w) for w in {words!r}])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True)


@pytest.mark.parametrize("factor", [1e300, 1e6, 1e-7, 40.0])
def test_scores_of_any_size_are_judged_and_told_in_few_digits(here: Command, truth: Path, factor: float) -> None:
    path = detections(truth.parent, [row(7, 90, DOG, 0.9 * factor), row(3, 12, CAT, 0.5 * factor)])
    answer = here("val", path, f"data={truth}", "--details")
    assert (answer.code, answer.err) == (0, "")
    assert max(map(len, answer.out.splitlines())) < 400
    assert "at score 0.000" not in answer.out


def test_at_and_score_in_the_numbers_of_the_file(here: Command, truth: Path) -> None:
    path = detections(truth.parent, [row(7, 90, DOG, 4.5), row(3, 12, CAT, -2.0)])
    assert "at score -1.000 (given)" in here("val", path, f"data={truth}", "at=-1").out
    assert "1 detection (1 more left out)" in here("val", path, f"data={truth}", "score=2").out
    shares = detections(truth.parent, [row(7, 90, DOG, 0.5)])
    for key, said in (("at=50", "at=50: all scores lie within 0 and 1"), ("score=50", "no detection scores as high")):
        answer = here("val", shares, f"data={truth}", key)
        assert (answer.code, said in answer.err) == (2, True)


def test_difficult_truths_only_are_not_nothing_found(here: Command, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "voc" / "Annotations").mkdir(parents=True)
    (tmp_path / "voc" / "JPEGImages").symlink_to(folder / "JPEGImages")
    text = (folder / "Annotations" / "disc00.xml").read_text()
    marked = text.replace("<bndbox>", "<difficult>1</difficult><bndbox>")
    (tmp_path / "voc" / "Annotations" / "disc00.xml").write_text(marked)
    path = detections(tmp_path, [row("disc00", 1, [1, 1, 20, 20])])
    answer = here("val", path, f"data={tmp_path / 'voc'}", "protocol=voc10", "allow_loss=true")
    assert answer.code == 0, answer.err
    assert "no truth that counts: precision –" in answer.out
    assert "nothing was found" not in answer.out


@pytest.mark.parametrize("name", ["found.json.gz", "found.jsonl", "found.weird", "found"])
def test_a_file_of_another_name_is_not_taken_for_weights(here: Command, truth: Path, name: str) -> None:
    path = truth.parent / name
    text = json.dumps([row(7, 90, DOG)])
    path.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode() * 2)
    answer = here("val", path, f"data={truth}")
    assert answer.code == 3
    assert ("is compressed" if name.endswith("gz") else "is no detection file of a known format") in answer.err


def test_a_packed_json_says_so(here: Command, truth: Path) -> None:
    path = truth.parent / "detections.json"
    path.write_bytes(gzip.compress(b"[]"))
    answer = here("val", path, f"data={truth}")
    assert (answer.code, "is compressed" in answer.err) == (3, True)


def test_a_file_that_a_run_lacks_is_missing_and_not_the_data(here: Command, truth: Path) -> None:
    (truth.parent / "run.json").write_text("{}")
    answer = here("val", truth.parent / "predictions.json")
    assert answer.code == 3
    assert "no such file or folder" in answer.err


@pytest.mark.parametrize("verb", ["val", "compare"])
def test_where_to_write_is_settled_before_anything_is_judged(here: Command, truth: Path, verb: str) -> None:
    path = detections(truth.parent, [row(7, 90, DOG)])
    words = [verb, path, *([path] if verb == "compare" else []), f"data={truth}"]
    deep = truth.parent / "not yet" / "there" / "scores.json"
    assert here(*words, "--out", deep).code == 0
    assert json.loads(deep.read_text())
    for key in ("--out", "--page")[: 2 if verb == "val" else 1]:
        answer = here(*words, key, truth.parent)
        assert (answer.code, answer.out) == (2, "")
        assert f"{key} {truth.parent} is a folder" in answer.err
        answer = here(*words, key, truth / "below.json")
        assert (answer.code, answer.out) == (1, "")
        assert "cannot be made: " in answer.err
        assert "ONESTAGE_RUNS" not in answer.err


def test_corners_written_where_width_and_height_are_expected(here: Command, truth: Path) -> None:
    boxes = [[10 + i, 10 + i, 60 + i, 70 + i] for i in range(10)]
    path = detections(truth.parent, [row(7, 90, box, 0.9) for box in boxes])
    said = here("val", path, f"data={truth}", "protocol=voc10").out
    assert "[boxes-as-corners]" in said
    path = detections(truth.parent, [row(7, 90, [box[0], box[1], 95, 75], 0.9) for box in boxes[:9]])
    assert "[boxes-as-corners]" not in here("val", path, f"data={truth}", "protocol=voc10").out
    sizes = [row(7, 90, [x, y, right - x, bottom - y], 0.9) for x, y, right, bottom in boxes]
    across = [row(7, 90, [80 - i, 60, 40, 40], 0.5) for i in range(5)]
    path = detections(truth.parent, [*sizes, *across])
    assert "[boxes-as-corners]" not in here("val", path, f"data={truth}", "protocol=voc10").out


def test_no_protocol_named_is_not_all_of_them(here: Command, truth: Path) -> None:
    for word in ("protocol=", "protocol=,", "protocol=[]"):
        answer = here("val", detections(truth.parent, []), f"data={truth}", word)
        assert (answer.code, "protocol: none is named" in answer.err) == (2, True)
