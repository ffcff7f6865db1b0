"""`onestage compare` as a process: the sentence, exit codes, JSON, gates, the common part."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import Answer, Command, onestage

sys.path.insert(0, str(Path(__file__).parents[1] / "analysis"))
from judged_runs import Set


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs weak and strong on the same images, cut on fewer images with another floor; files of two of them."""
    root = tmp_path_factory.mktemp("compared") / "runs"
    root.mkdir()
    made = Set.made(30)
    fewer = Set({image: truth for image, truth in made.truths.items() if image > 10})
    made.run(root, "weak", made.found(0.3, 1))
    made.run(root, "strong", made.found(0.95, 2))
    fewer.run(root, "cut", {i: d for i, d in made.found(0.95, 3).items() if i > 10}, floor=0.3)
    made.coco_file(root / "truth.json")
    made.detection_file(root / "weak.json", made.found(0.3, 1))
    made.detection_file(root / "strong.json", made.found(0.95, 2))
    return root


@pytest.fixture
def compare(runs: Path) -> Command:
    def call(*words: str | Path) -> Answer:
        return onestage("compare", *words, runs=runs)

    return call


def test_the_sentence_comes_first_then_what_it_rests_on(compare: Command) -> None:
    answer = compare("weak", "strong")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith("strong is better by ")
    assert lines[0].endswith(" on 30 images")
    assert lines[1].startswith("the smallest difference this set could have shown: ")
    for said in (
        "protocol coco, floor 0.01",
        "30 images, 60 truths",
        "1,000 paired resamples",
        "mAP50-95",
        "cat",
        "dog",
        "**",
    ):
        assert said in answer.out
    assert "note: one seed per arm" in answer.out


def test_json_and_out_hold_every_score_and_class(compare: Command, tmp_path: Path) -> None:
    answer = compare("weak", "strong", "names=[a,b]", "--json", "--out", tmp_path / "c.json")
    assert answer.code == 0
    assert answer.json == json.loads((tmp_path / "c.json").read_text())
    assert "b is better by" in answer.err
    pair = answer.json["pairs"][0]
    assert (pair["a"], pair["b"], pair["outcome"]) == ("a", "b", "better")
    assert {(row["name"], row["class"]) for row in pair["rows"]} >= {
        ("mAP50-95", None),
        ("AP50-95", "cat"),
        ("AP50", "dog"),
    }
    assert pair["headline"]["p"] < 0.05
    assert pair["headline"]["interval"][0] > 0


def test_detection_files(compare: Command, runs: Path) -> None:
    answer = compare(
        runs / "weak.json", runs / "strong.json", f"data={runs / 'truth.json'}", "protocol=voc10", "--json"
    )
    assert answer.code == 0, answer.err
    assert answer.json["protocol"] == "voc10"
    assert answer.json["verdict"].startswith("strong is better by")


def test_unfair_is_refused_and_the_common_part_on_request(compare: Command) -> None:
    answer = compare("weak", "cut")
    assert (answer.code, answer.out) == (6, "")
    assert "weak and cut cannot be compared fairly" in answer.err
    assert "images: 10 of the 30 images of weak" in answer.err
    assert "score floor: weak keeps nothing below 0.01, cut keeps nothing below 0.3" in answer.err
    assert "--common" in answer.err
    common = compare("weak", "cut", "--common")
    assert common.code == 0, common.err
    assert " on 20 images" in common.out.splitlines()[0]
    assert common.out.count("left out or not alike: ") == 2
    assert compare("weak", "cut", "common=true", "--json").json["n_images"] == 20
    said = json.loads(compare("weak", "cut", "--json").out)
    assert "cannot be compared fairly" in json.dumps(said)


def test_gates(compare: Command) -> None:
    assert compare("weak", "strong", "--gate", "better").code == 0
    refused = compare("strong", "weak", "--gate", "not-worse")
    assert refused.code == 6
    assert "gate 'not-worse' is not passed" in refused.err
    assert "weak is worse by" in refused.err
    assert compare("weak", "weak", "gate=better").code == 6
    assert compare("weak", "weak", "gate=not-worse").code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["weak"], 2, "two arms are needed"),
        (["weak", "stron"], 2, "did you mean 'strong'"),
        (["weak", "strong", "protocl=coco"], 2, "did you mean 'protocol'"),
        (["weak", "strong", "level=101", "see=x", "gate=bigger", "floor=2"], 2, "gate: expected better or not-worse"),
        (["weak", "strong", "--comon"], 2, "did you mean --common"),
        (["weak", "nothing.json"], 3, "no such file or folder"),
        (["weak", "nothing.tsv"], 3, "no such file or folder"),
        (["weak", "runs"], 2, "there is no run 'runs', nor a file or folder of detections called so"),
        (["weak", "strong", "protocol=coco,voc07"], 2, "protocol: one is expected, got coco,voc07"),
        (["weak", "strong", "format=cocos", "allow_loss=maybe"], 2, "allow_loss: expected true or false"),
    ],
)
def test_wrong_words(compare: Command, words: list[str], code: int, said: str) -> None:
    answer = compare(*words)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_the_same_twice(compare: Command) -> None:
    answer = compare("weak", "weak")
    assert answer.code == 0
    assert answer.out.startswith("no difference: the detections of B are those of A on all 30 images")


def test_damaged_detections(compare: Command, runs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('[{"image_id": 1}]')
    answer = compare("weak", bad, f"data={runs / 'truth.json'}")
    assert answer.code == 3
    assert "bad.json" in answer.err


def test_rows_that_cannot_be_judged_stop_or_are_left_out(compare: Command, runs: Path, tmp_path: Path) -> None:
    rows = json.loads((runs / "strong.json").read_text())
    path = tmp_path / "new.json"
    path.write_text(json.dumps([*rows, {**rows[0], "score": "high"}, {**rows[0], "image_id": 4711}]))
    words = (runs / "weak.json", path, f"data={runs / 'truth.json'}", "format=coco")
    stopped = compare(*words)
    assert (stopped.code, "allow_loss=true leaves the rows out" in stopped.err) == (3, True)
    answer = compare(*words, "allow_loss=true")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0] == compare(runs / "weak.json", runs / "strong.json", words[2]).out.splitlines()[
        0
    ].replace("strong", "new")
    assert "note: new.json: [60]: score 'high': expected a number" in answer.out
    assert compare(*words[:3], "format=yolo").code == 3


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("metrics.json", '{"score_floor": "x", "protocols": 3}', 0), ("metrics.json", "[]", 0),
        ("recipe.yaml", "validation: 3", 0), ("validation.json", "{}", 3), ("validation.json", "[", 3),
        ("validation.json", '{"images": [{}], "annotations": [], "categories": []}', 3), ("predictions.json", "", 3),
    ],
)  # fmt: skip
def test_damaged_run_folders(here: Command, tmp_path: Path, name: str, text: str, code: int) -> None:
    made = Set.made(12)
    for run in ("sound", "hurt"):
        made.run(tmp_path / "runs", run, made.found(0.5, 1))
    (tmp_path / "runs" / "hurt" / name).write_text(text)
    answer = here("compare", "sound", "hurt", "resamples=100", "floor=0.01")
    refused = 6 if name == "recipe.yaml" else code  # how its boxes were selected is not known
    assert (answer.code, "unforeseen" in answer.err) == (refused, False), answer.err
    assert "Error(" not in answer.err
    answer = here("val", tmp_path / "runs" / "hurt" / "predictions.json", "protocol=voc10")
    assert (answer.code, "unforeseen" in answer.err) == (code, False), answer.err
