"""The run folder: names, numbers never given twice, whole files on a full disk, resume, cut lines."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onestage.errors import StorageError, UsageError
from onestage.experiments import storage
from onestage.experiments.naming import run_names, runs_root, usual_prefix
from onestage.experiments.run import Run
from onestage.experiments.storage import as_json, as_yaml, lively, plain


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path, name="one")


def test_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONESTAGE_RUNS", raising=False)
    assert runs_root() == Path("runs")
    monkeypatch.setenv("ONESTAGE_RUNS", str(tmp_path / "deep" / "er"))
    assert Run.create(name="x").folder == tmp_path / "deep" / "er" / "x"
    assert run_names() == ["x"]


@pytest.mark.parametrize(
    ("model", "data", "prefix"),
    [
        ("ssd-lite0", "photos", "ssd-lite0-photos"), ("yolov3-tiny-custom.cfg", "a/obj.data", "yolov3-tiny-custom-obj"),
        ("yolov3", "signs/data.yaml", "yolov3-signs"), ("yolov3", "sets.yaml", "yolov3-sets"),
        ("yolov3", "data", "yolov3-data"),
        ("ssd-lite0", "photos.2024", "ssd-lite0-photos.2024"), ("ssd-lite0", "/", "ssd-lite0-data"),
    ],
)  # fmt: skip
def test_a_run_is_named_after_model_and_data(model: str, data: str, prefix: str) -> None:
    assert usual_prefix(model, data) == prefix


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_yaml_comes_back(content: dict[str, object]) -> None:
    assert yaml.safe_load(as_yaml(content)) == content


def test_a_text_of_several_lines_is_a_block() -> None:
    assert as_yaml({"cfg": "[net]\nwidth=64\n", "size": 3}) == "cfg: |\n  [net]\n  width=64\nsize: 3\n"


def test_a_new_run_says_what_it_is(run: Run) -> None:
    assert run.info["name"] == "one" == run.name
    assert run.info["status"] == "running"
    assert run.info["parents"] == []
    assert run.weights_dir.is_dir()
    assert run.state_dir.is_dir()
    assert (run.steps, run.results, run.metrics, run.predictions, run.findings) == ([], [], {}, [], [])
    assert (run.recipe, run.asked) == ({}, {})


def test_a_taken_name_is_refused_and_the_run_untouched(run: Run) -> None:
    before = run.info_path.read_bytes()
    with pytest.raises(UsageError, match=r"already in(.|\n)*--resume one"):
        Run.create(run.folder.parent, name="one")
    assert run.info_path.read_bytes() == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "-x", ".hidden", "a\n", "x" * 101, "x.", "a:b"])
def test_names_that_no_folder_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a run"):
        Run.create(tmp_path, name=name)
    assert [entry.name for entry in tmp_path.iterdir()] == []


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    names = [Run.create(tmp_path, prefix="ssd/trees").name for _ in range(3)]
    assert names == ["ssd-trees-001", "ssd-trees-002", "ssd-trees-003"]
    shutil.rmtree(tmp_path / "ssd-trees-003")
    shutil.rmtree(tmp_path / "ssd-trees-002")
    assert Run.create(tmp_path, prefix="ssd/trees").name == "ssd-trees-004"
    assert Run.create(tmp_path, prefix="other").name == "other-001"
    (tmp_path / ".ids").unlink()  # lost with a copy, say: the folders still count
    assert Run.create(tmp_path, prefix="ssd/trees").name == "ssd-trees-005"


def test_numbers_and_a_prefix_that_ends_in_a_number(tmp_path: Path) -> None:
    Run.create(tmp_path, prefix="a-7")
    assert Run.create(tmp_path, prefix="a").name == "a-001"


def test_two_makers_never_share_a_folder(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> None:
        for _ in range(10):
            made.append(Run.create(tmp_path, prefix="r").name)

    threads = [threading.Thread(target=make) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(set(made)) == len(made) == 40
    assert len({Run.open(name, tmp_path).info["id"] for name in made}) == 40


def test_open_by_name_and_by_path(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESTAGE_RUNS", str(run.folder.parent))
    assert Run.open("one").info["id"] == run.info["id"] == Run.open(run.folder).info["id"]
    with pytest.raises(UsageError, match=r"no run 'on' \(did you mean 'one'\?\)"):
        Run.open("on")
    (run.folder.parent / "foreign").mkdir()
    with pytest.raises(UsageError, match="not a run folder"):
        Run.open(run.folder.parent / "foreign")
    with pytest.raises(UsageError, match="holds no runs yet"):
        Run.open("x", run.folder / "weights")


@pytest.mark.parametrize("text", ["{", "[]", "", "\x00"])
def test_a_damaged_run_json_is_named(run: Run, text: str) -> None:
    run.info_path.write_text(text)
    with pytest.raises(UsageError, match=r"run\.json cannot be read"):
        _ = run.info


def test_update_merges_mappings_within_mappings(run: Run) -> None:
    run.update(seconds={"train": 3.0}, model={"name": "ssd"})
    run.update(seconds={"eval": 1.0}, best={"value": math.nan})
    assert run.info["seconds"] == {"train": 3.0, "eval": 1.0}
    assert run.info["model"] == {"name": "ssd"}
    assert "NaN" not in run.info_path.read_text()


def test_finish_closes_the_segment_and_begin_opens_one(run: Run) -> None:
    run.begin()
    for step in (1, 2, 3):
        run.append_step({"step": step, "loss": 1.0})
    run.finish("stopped")
    run.begin(from_step=2)
    run.append_step({"step": 3, "loss": 0.5})
    assert run.info["status"] == "running"
    run.finish()
    first, second = run.info["segments"]
    assert (first["from_step"], first["to_step"]) == (0, 3)
    assert (second["from_step"], second["to_step"]) == (2, 3)
    assert first["end"] <= second["start"] <= second["end"]
    assert run.info["status"] == "finished"
    with pytest.raises(ValueError, match="expected one of running, finished"):
        run.finish("done")  # type: ignore[arg-type]


def test_a_segment_that_a_crash_left_open_gets_its_last_step(run: Run) -> None:
    run.begin()
    run.append_step({"step": 7, "loss": 1.0})
    run.begin(from_step=5)
    assert [(part["to_step"], part["end"]) for part in run.info["segments"]] == [(7, None), (None, None)]


def test_steps_keep_numbers_that_are_not_finite_as_words(run: Run) -> None:
    run.append_step({"step": 1, "loss": math.nan, "raw": {"cls": math.inf, "box": -math.inf}, "lr": {"all": 0.1}})
    line = (run.folder / "steps.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["raw"] == {"cls": "inf", "box": "-inf"}
    (step,) = run.steps
    assert math.isnan(step["loss"])
    assert step["raw"] == {"cls": math.inf, "box": -math.inf}


def test_a_cut_last_line_costs_that_line_only(run: Run) -> None:
    for step in (1, 2):
        run.append_step({"step": step, "loss": 1.0})
    path = run.folder / "steps.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert [row["step"] for row in run.steps] == [1]
    assert run.damaged_lines == 1
    run.append_step({"step": 2, "loss": 0.9})
    assert [row["step"] for row in run.steps] == [1, 2]
    assert run.damaged_lines == 1


def test_what_a_resume_did_again_replaces_what_it_went_back_over(run: Run) -> None:
    for step in (1, 2, 3, 4, 3):
        run.append_step({"step": step, "loss": float(step)})
        run.append_result({"epoch": step, "step": step, "metrics/mAP50": step / 10})
    assert [row["step"] for row in run.steps] == [1, 2, 3]
    assert [row["step"] for row in run.results] == [1, 2, 3]
    assert len((run.folder / "steps.jsonl").read_text().splitlines()) == 5  # nothing was deleted
    assert len((run.folder / "results.csv").read_text().splitlines()) == 6


def test_results_gain_columns_without_losing_rows(run: Run) -> None:
    run.append_result({"epoch": 1, "step": 10, "train/cls": 0.1 + 0.2})
    run.append_result({"epoch": 2, "step": 20, "val/cls": math.nan, "note": 'a "quoted", cell'})
    run.append_result({"step": 30, "train/cls": None})
    text = (run.folder / "results.csv").read_text().splitlines()
    assert text[0] == "epoch,step,train/cls,val/cls,note"
    first, second, third = run.results
    assert first == {"epoch": 1.0, "step": 10.0, "train/cls": 0.1 + 0.2}
    assert math.isnan(second["val/cls"])
    assert second["note"] == 'a "quoted", cell'
    assert third == {"step": 30.0}


def test_asked_and_recipe_keep_their_earlier_forms(run: Run) -> None:
    run.write_asked("# mine\nmodel: ssd300\n")
    run.write_asked("# mine\nmodel: ssd300\n")
    assert not (run.folder / "asked-1.yaml").exists()
    run.write_asked({"model": "ssd512", "data": Path("x/y")})
    assert run.asked == {"model": "ssd512", "data": "x/y"}
    assert (run.folder / "asked-1.yaml").read_text() == "# mine\nmodel: ssd300\n"
    run.write_recipe({"classes": ("Bäume", "a: b"), "lr": 1e-3})
    assert run.recipe == {"classes": ["Bäume", "a: b"], "lr": 1e-3}


def test_lists_and_mappings_come_back(run: Run) -> None:
    predictions = [{"image_id": "a", "category_id": 1, "bbox": [0.1, 0.2, 3.0, 4.0], "score": 0.5}]
    run.write_predictions(predictions)
    run.write_metrics({"n_images": 2, "rows": []})
    run.write_findings([])
    assert run.predictions == predictions
    assert run.metrics == {"n_images": 2, "rows": []}
    assert run.findings == []


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_the_earlier_file(run: Run, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    run.write_metrics({"n_images": 1})
    run.write_file("weights/last.safetensors", b"good")

    def refuse(*_: object) -> int:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(StorageError, match=r"disk is full.*untouched(.|\n)*ONESTAGE_RUNS") as caught:
            run.write_metrics({"n_images": 2})
        assert caught.value.exit_code == 1
        with pytest.raises(StorageError, match="disk is full"):
            run.write_file("weights/last.safetensors", b"half")
        with pytest.raises(StorageError, match="disk is full"):
            run.update(status="finished")
    assert run.metrics == {"n_images": 1}
    assert (run.weights_dir / "last.safetensors").read_bytes() == b"good"
    assert run.info["status"] == "running"
    assert not list(run.folder.rglob("*.part"))


def test_a_disk_that_fills_within_a_line_loses_that_line_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.append_step({"step": 1, "loss": 1.0})
    write, calls = os.write, []

    def fill(descriptor: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise FULL
        return write(descriptor, bytes(data)[:9])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fill)
        with pytest.raises(StorageError, match=r"disk is full.*steps\.jsonl"):
            run.append_step({"step": 2, "loss": 0.5})
    run.append_step({"step": 2, "loss": 0.25})
    assert [row["loss"] for row in run.steps] == [1.0, 0.25]


def _write_half(run: Run, relative: str, error: Exception) -> None:
    with run.replacing(relative) as temporary:
        temporary.write_bytes(b"half")
        raise error


def test_a_full_disk_is_known_through_another_librarys_error(run: Run) -> None:
    run.write_file("weights/best.safetensors", b"good")
    with pytest.raises(StorageError, match="disk is full"):
        _write_half(run, "weights/best.safetensors", RuntimeError("I/O error: No space left on device (os error 28)"))
    assert (run.weights_dir / "best.safetensors").read_bytes() == b"good"


def test_other_errors_pass_through_and_leave_the_file(run: Run) -> None:
    run.write_file("state/x", b"good")
    with pytest.raises(ZeroDivisionError):
        _write_half(run, "state/x", ZeroDivisionError())
    assert (run.state_dir / "x").read_bytes() == b"good"
    assert [entry.name for entry in run.state_dir.iterdir()] == ["x"]


def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StorageError, match=r"read-only(.|\n)*ONESTAGE_RUNS"):
        Run.create(tmp_path / "new")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_any_value_becomes_strict_json_and_comes_back(value: dict[str, object]) -> None:
    text = as_json(value)
    found = json.loads(text, parse_constant=pytest.fail)
    assert found == plain(value)
    assert repr(lively(plain(lively(plain(value))))) == repr(lively(plain(value)))
    assert as_json([value]).count("\n") == 3  # one line per element, whatever the text holds


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.integers(1, 12), max_size=20), st.integers(0, 30))
def test_steps_always_rise_and_end_with_the_last_written(tmp_path: Path, order: list[int], cut: int) -> None:
    path = tmp_path / "steps.jsonl"
    path.unlink(missing_ok=True)
    for index, step in enumerate(order):
        storage.append_line(path, json.dumps({"step": step, "n": index}))
    whole = Run(tmp_path).steps
    assert [row["step"] for row in whole] == sorted({row["step"] for row in whole})
    assert not order or whole[-1]["n"] == len(order) - 1
    if path.exists():
        path.write_bytes(path.read_bytes()[: -cut or None])
        shorter = Run(tmp_path).steps
        assert [row["step"] for row in shorter] == sorted({row["step"] for row in shorter})


def test_why_a_run_failed_is_kept_until_it_ends_well(tmp_path: Path) -> None:
    run = Run.create(tmp_path, name="a")
    run.begin()
    run.finish("failed", "the disk is full")
    assert run.info["error"] == "the disk is full"
    run.begin(3)
    run.finish()
    assert (run.info["status"], run.info["error"]) == ("finished", None)


def test_a_file_in_the_place_of_the_runs_folder_is_told_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StorageError, match="could not be written") as caught:
        Run.create(tmp_path / "runs")
    assert "ONESTAGE_RUNS" in str(caught.value.hint)
