"""Bad input: each kind gives its exit code, a clear message, what to try, and never a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import TINY, Answer, Command, discs, write_xml


def refused(answer: Answer, code: int, *words: str) -> None:
    assert answer.code == code, answer
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.out + answer.err
    for word in words:
        assert word in answer.err, answer.err


def test_a_data_folder_that_does_not_exist(here: Command, folder: Path) -> None:
    refused(here("train", f"data={folder}x", *TINY), 3, "no such folder", "did you mean", folder.name)


def test_an_empty_data_folder(here: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(here("train", f"data={tmp_path / 'empty'}", *TINY), 3, "empty", "COCO", "VOC", "YOLO")


def test_many_truncated_images_stop_and_are_listed(here: Command, tmp_path: Path) -> None:
    data = discs(tmp_path / "discs")
    path = data / "JPEGImages" / "disc03.jpg"
    path.write_bytes(path.read_bytes()[:300])
    answer = here("train", f"data={data}", *TINY)
    refused(answer, 3, "disc03.jpg", "5%", "allow_loss=true")


def test_a_few_bad_files_are_listed_and_left_out(here: Command, tmp_path: Path) -> None:
    data = discs(tmp_path / "discs", images=60)
    path = data / "JPEGImages" / "disc03.jpg"
    path.write_bytes(path.read_bytes()[:300])
    write_xml(data, "disc04", [(10, 10, 40, 40), (50, 50, 50, 80)])
    entity = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>\n'
    write_xml(data, "disc05", [(10, 10, 40, 40)], head=entity)
    answer = here("train", f"data={data}", "--dry-run", "--picture", "none", "--json", *TINY)
    assert answer.code == 0, answer.err
    found = {(finding["code"], finding["where"]["file"]) for finding in answer.json["findings"]}
    assert ("unreadable-image", "JPEGImages/disc03.jpg") in found
    assert ("zero-area-box", "Annotations/disc04.xml") in found
    assert ("refused-xml", "Annotations/disc05.xml") in found
    assert "root:" not in answer.out + answer.err


def test_an_external_entity_is_never_read(here: Command, tmp_path: Path) -> None:
    data = discs(tmp_path / "discs", images=3)
    entity = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>\n'
    for i in range(3):
        write_xml(data, f"disc{i:02d}", [(10, 10, 40, 40)], head=entity)
    refused(here("data", "show", data), 3, "disc00.xml", "refused-xml")


def test_a_class_missing_from_the_list(here: Command, folder: Path) -> None:
    refused(here("train", f"data={folder}", "classes=[disk]", *TINY), 3, "'disc' is not in the list", "did you mean")


def test_misspelt_keys_are_all_told(here: Command, folder: Path) -> None:
    answer = here("train", f"data={folder}", "epocs=3", "--optimiser.lrr", "1")
    refused(answer, 2, "did you mean 'epochs'", "did you mean 'optimiser.lr'")


def test_a_value_out_of_range(here: Command, folder: Path) -> None:
    refused(here("train", f"data={folder}", "batch=0"), 2, "batch", "greater than or equal to 1", "got 0")


def test_an_unknown_model(here: Command, folder: Path) -> None:
    refused(here("train", f"data={folder}", "model=ssd30"), 4, "did you mean 'ssd300'?")


def test_bad_weights(here: Command, folder: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.safetensors"
    junk.write_bytes(b"not weights")
    refused(here("train", f"data={folder}", *TINY, f"weights={junk}"), 4, str(junk))
    refused(here("val", junk, f"data={folder}"), 4, str(junk))
    refused(here("val", tmp_path / "none.pth", f"data={folder}"), 4, "none.pth")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "'train'"),
        (["train", "--dry-rn", "data=x"], "--dry-run"),
        (["runs", "shwo"], "'show'"),
        (["data", "gte", "trees"], "'get'"),
        (["data", "get", "tree"], "'trees'"),
        (["val", "x.json", "protcol=coco"], "'protocol'"),
        (["demo", "--quik"], "--quick"),
    ],
)
def test_misspelt_words_of_the_command_line(here: Command, words: list[str], said: str) -> None:
    answer = here(*words)
    refused(answer, 2, said)
    assert "did you mean" in answer.err.lower()


@pytest.mark.parametrize(
    "words", [["train", "a.yaml", "b.yaml"], ["val"], ["runs", "show"], ["report"], ["data", "get"]]
)
def test_places_too_many_or_missing(here: Command, words: list[str]) -> None:
    refused(here(*words), 2)


def test_an_unknown_run(here: Command) -> None:
    for words in (["runs", "show", "x"], ["train", "--resume", "x"], ["report", "x"], ["val", "x"]):
        refused(here(*words), 2, "no run 'x'")


def test_errors_are_json_too(here: Command, folder: Path) -> None:
    answer = here("train", f"data={folder}", "epocs=3", "--json")
    assert answer.code == 2
    assert answer.json["exit_code"] == 2
    assert answer.json["error"]["problems"] == ["epocs: unknown key (did you mean 'epochs' or 'steps'?)"]
    assert here("trian", "--json").json["exit_code"] == 2


def test_a_fault_of_ours_is_one_line_and_a_file(
    here: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    def broken(*_: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("onestage.experiments.ledger.runs", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    answer = here("runs")
    refused(answer, 1, "unforeseen ZeroDivisionError: division by zero", "please report")
    (file,) = tmp_path.glob("traceback-*.txt")
    assert str(file) in answer.err
    assert "broken" in file.read_text()
    monkeypatch.setenv("ONESTAGE_DEBUG", "1")
    assert "Traceback" in here("runs").err


def test_a_missing_extra_is_named(here: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onestage.training.fit", None)

    def missing(name: str, *rest: object, **more: object) -> object:
        if name == "onestage.training.fit":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    real = __import__
    monkeypatch.setattr("builtins.__import__", missing)
    refused(here("train", f"data={folder}", *TINY), 1, "torch", "pip install 'onestage[train]'")


def test_an_empty_ledger(here: Command) -> None:
    assert here("runs").out.strip().endswith("`onestage train` makes one")
    assert here("runs", "--json").json["runs"] == []


def test_the_samples_as_json(here: Command) -> None:
    (trees,) = json.loads(here("data", "ls", "--json").out)["samples"]
    assert (trees["name"], trees["licence"], trees["counts"]) == ("trees", "MIT", None)
