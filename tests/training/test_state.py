"""States: whole or not at all, damage told from wholeness, the one before used, a full disk told with its cost."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from onestage.errors import ModelError, RecipeError, StorageError, UsageError
from onestage.experiments.lock import holder
from onestage.experiments.run import Run
from onestage.training.saving import state as states
from onestage.training.saving.state import (
    digest,
    held_by_us,
    load_state,
    refuse_edited_recipe,
    save_state,
    saved_steps,
    tidy,
    told_loss,
)

RECIPE = {"data": "trees", "optimiser": {"lr": 1e-5}, "size": [64, 64], "weights": None}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.create(tmp_path, "kept")
    run.write_recipe(RECIPE)
    return run


def content(step: int) -> dict[str, Any]:
    return {"step": step, "model": {"weight": torch.full((50, 50), float(step))}, "best": None}


def save(run: Run, *steps: int) -> None:
    for step in steps:
        save_state(run, content(step), step=step, recipe=RECIPE)


def test_a_state_comes_back_as_it_was(run: Run) -> None:
    assert load_state(run) is None
    save(run, 7)
    saved = load_state(run)
    assert saved is not None
    assert (saved.step, saved.said) == (7, ())
    assert torch.equal(saved.state["model"]["weight"], content(7)["model"]["weight"])
    refuse_edited_recipe(run, saved)


def test_two_states_are_kept(run: Run) -> None:
    save(run, 1, 20, 20, 300, 4000)
    assert saved_steps(run) == [4000, 300]
    assert {path.name for path in run.state_dir.iterdir()} == {"last.pt", "step-00000300.pt"}
    before = load_state(run, at_most=3999)
    assert before is not None
    assert before.step == 300
    assert load_state(run, at_most=299) is None


def test_torch_reads_a_state_without_us(run: Run) -> None:
    save(run, 3)
    assert torch.load(run.state_dir / "last.pt", weights_only=True)["step"] == 3


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def hollow(path: Path) -> None:
    """The middle lost, the end there: what a power cut may leave."""
    data = path.read_bytes()
    path.write_bytes(data[:100] + data[5000:])


def zeroed(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("damage", [flipped, cut, hollow, zeroed])
def test_a_damaged_state_gives_way_to_the_one_before(run: Run, damage: Callable[[Path], None]) -> None:
    save(run, 10, 20)
    damage(run.state_dir / "last.pt")
    saved = load_state(run)
    assert saved is not None
    assert saved.step == 10
    assert "last.pt is damaged" in saved.said[0]
    tidy(run, saved)
    assert saved_steps(run) == [10]
    again = load_state(run)
    assert again is not None
    assert (again.step, again.said) == (10, ())


def test_a_flipped_bit_of_the_card_is_no_other_state(run: Run) -> None:
    """The card is sealed with the content: no bit of it can make the state one of another step or recipe."""
    save(run, 10, 21)
    path = run.state_dir / "last.pt"
    whole = path.read_bytes()
    begin = whole.rindex(b"\nonestage-state ")
    passed_over = 0
    for at in range(begin, len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[at] ^= 1 << bit
            path.write_bytes(data)
            saved = load_state(run)
            assert saved is not None
            assert (saved.step, saved.state["step"]) in ((21, 21), (10, 10)), (at - begin, bit)
            passed_over += saved.step == 10
    assert passed_over > 8 * (len(whole) - begin) - 20


def test_a_state_cut_anywhere_gives_way_to_the_one_before(run: Run) -> None:
    save(run, 10, 20)
    path = run.state_dir / "last.pt"
    whole = path.read_bytes()
    begin = whole.rindex(b"\nonestage-state ")
    for length in {0, 1, 100, begin - 1, *range(begin, len(whole) - 1), len(whole) // 2}:
        path.write_bytes(whole[:length])
        saved = load_state(run)
        assert saved is not None
        assert saved.step == 10, length
    path.write_bytes(whole + b"x" * 2000)
    told = load_state(run)
    assert told is not None
    assert (told.step, len(told.said)) == (10, 1)


def test_a_missing_last_state_gives_way_to_the_one_before(run: Run) -> None:
    save(run, 10, 20)
    (run.state_dir / "last.pt").unlink()
    (run.state_dir / ".last.pt.7-ab.part").write_bytes(b"half a state")
    saved = load_state(run)
    assert saved is not None
    assert saved.step == 10
    tidy(run, saved)
    assert {path.name for path in run.state_dir.iterdir()} == {"last.pt"}


def test_two_damaged_states_are_no_start(run: Run) -> None:
    save(run, 10, 20)
    for path in run.state_dir.glob("*.pt"):
        flipped(path)
    with pytest.raises(ModelError, match="no whole state") as caught:
        load_state(run)
    assert len(caught.value.problems) == 2


def test_a_save_killed_between_two_renames_leaves_a_state(run: Run) -> None:
    save(run, 10, 20)
    (run.state_dir / "last.pt").replace(run.state_dir / "step-00000020.pt")
    save_in_part = run.state_dir / ".last.pt.1-ab.part"
    save_in_part.write_bytes(b"half")
    saved = load_state(run)
    assert saved is not None
    assert saved.step == 20
    assert tidy(run, saved) == 1
    assert saved_steps(run) == [20, 10]
    save(run, 30)
    assert saved_steps(run) == [30, 20]


def test_no_code_is_read_from_a_state(run: Run) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, ("echo unpacked",)

    save_state(run, {"evil": Evil()}, step=1, recipe=RECIPE)
    with pytest.raises(ModelError, match="cannot be read"):
        load_state(run)


def test_a_full_disk_leaves_the_earlier_states(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 10, 20)
    for room in (0, 100, 5000, 11000):
        _fill(monkeypatch, room)
        with pytest.raises(StorageError, match="the disk is full"):
            save(run, 30)
        monkeypatch.undo()
        assert saved_steps(run) == [20, 10]
        assert load_state(run) is not None
    assert tidy(run) == 0
    save(run, 30)
    assert saved_steps(run) == [30, 20]


def _fill(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Room for so many bytes in a state file."""

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + memoryview(data).nbytes > room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def opened(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return Full(self, "w") if mode == "wb" else original(self, mode, *rest, **more)

    original = Path.open
    monkeypatch.setattr(Path, "open", opened)


def test_a_full_disk_says_what_is_lost(run: Run) -> None:
    error = StorageError("the disk is full", hint="free some")
    assert told_loss(error, run, 12).problems == (
        "no state was saved yet: the run would begin again, 12 steps are lost",
    )
    save(run, 10)
    assert told_loss(error, run, 12).problems == ("the last state is of step 10: 2 steps will be done again",)
    assert told_loss(error, run, 10).problems == ("the state after step 10 is saved: nothing is lost",)
    assert "--resume kept" in str(told_loss(error, run, 11).hint)


def test_a_recipe_edited_by_hand_is_refused(run: Run) -> None:
    save(run, 10)
    saved = load_state(run)
    assert saved is not None
    (run.folder / "recipe.yaml").write_text("data: trees\noptimiser: {lr: 0.1}\n")
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        refuse_edited_recipe(run, saved)


def test_a_recipe_changed_by_a_resume_that_was_killed_is_known(run: Run) -> None:
    save(run, 10)
    saved = load_state(run)
    assert saved is not None
    run.write_recipe({**RECIPE, "epochs": 9})
    assert run.earlier_recipes == [RECIPE]
    refuse_edited_recipe(run, saved)


def test_a_recipe_edited_by_hand_after_a_change_is_refused(run: Run) -> None:
    """The state is still of the recipe before the change, which is known; the segment's is not."""
    save(run, 5)
    saved = load_state(run)
    assert saved is not None
    changed = {**RECIPE, "clip": 1.0}
    run.write_recipe(changed)
    run.begin(5, recipe=digest(changed))
    refuse_edited_recipe(run, saved)
    path = run.folder / "recipe.yaml"
    path.write_text(path.read_text().replace("clip: 1.0", "clip: 2.0"))
    with pytest.raises(RecipeError, match=r"recipe\.yaml is not the recipe"):
        refuse_edited_recipe(run, saved)


def test_one_process_at_a_time(run: Run) -> None:
    assert holder(run.folder / states.LOCK) is None
    with held_by_us(run):
        with pytest.raises(UsageError, match="is being trained by process"), held_by_us(run):
            pass
        assert holder(run.folder / states.LOCK) == {"pid": os.getpid(), "host": os.uname().nodename}
    assert holder(run.folder / states.LOCK) is None
    with held_by_us(run):
        pass


def test_a_lock_ends_with_its_process(run: Run) -> None:
    code = (
        "import sys, time; from pathlib import Path; from onestage.experiments.lock import held\n"
        f"with held(Path({str(run.folder / states.LOCK)!r})): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"process {other.pid} on") as caught, held_by_us(run):
            pass
        assert f"kill {other.pid}" in str(caught.value.hint)
        assert (holder(run.folder / states.LOCK) or {})["pid"] == other.pid
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert other.stdout is not None
        other.stdout.close()
    with held_by_us(run):
        pass
