"""Runs on sets mixed by ratio: recorded, silent, exact when taken up again, refused with another ratio."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_fit import TINY, StopAt, same_weights, shapes, values

from onestage.errors import DataError
from onestage.experiments.run import Run
from onestage.records import ImageId
from onestage.training.fit import fit, resume
from onestage.training.loop.step_record import StepRecord
from onestage.training.order_check import OrderCheck
from onestage.training.watcher import Watcher

KEYS: Mapping[str, Any] = {**TINY, "validation.every": 2, "validation.protocols": ["voc10"], "saving.seconds": 0}
SPEC = "train:\n- {data: often, ratio: 3}\n- {data: seldom, ratio: 1}\nval: judged\n"


class Seen(Watcher):
    """Keeps the ids of every step."""

    def __init__(self) -> None:
        self.ids: list[tuple[ImageId, ...]] = []

    def stepped(self, record: StepRecord, plan: Any) -> None:
        self.ids.append(tuple(record.ids))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    for seed, (name, images) in enumerate({"often": 3, "seldom": 5, "judged": 3}.items()):
        shapes(root / name, images=images, seed=seed, empty=0)
    (root / "mix.yaml").write_text(SPEC)
    return root / "mix.yaml"


def test_a_mixed_run_is_recorded_exact_on_resume_and_bound_to_its_ratios(spec: Path, tmp_path: Path) -> None:
    seen = Seen()
    whole = fit({**KEYS, "data": str(spec)}, root=tmp_path / "whole", watcher=seen)
    assert whole.info["data"]["train"]["parts"] == [
        {"data": "often", "images": 3, "ratio": 3.0, "per_epoch": 6},
        {"data": "seldom", "images": 5, "ratio": 1.0, "per_epoch": 2},
    ]
    assert (
        "an epoch takes 6 images of often (it has 3) and 2 images of seldom (it has 5)"
        in whole.info["data"]["described"]
    )
    assert len(whole.steps) == 4  # two of four images in each of two epochs
    often = {f"{i:03d}" for i in range(3)}
    assert [sum(i in often for ids in seen.ids[at : at + 2] for i in ids) for at in (0, 2)] == [6, 6]
    assert "batches-alike" not in {finding["code"] for finding in whole.findings}
    with pytest.raises(KeyboardInterrupt):
        fit({**KEYS, "data": str(spec), "name": "cut"}, root=tmp_path, watcher=StopAt(3))
    run = Run.open("cut", tmp_path)
    spec.write_text(SPEC.replace("ratio: 3", "ratio: 2"))
    with pytest.raises(DataError, match="has changed since it began") as told:
        resume(run)
    assert "mixed by 3 of often, 1 of seldom when the run began, by 2 of often, 1 of seldom now" in str(told.value)
    spec.write_text(SPEC)
    resume(run)
    assert values(run) == values(whole)
    assert same_weights(run, whole)


def test_more_repeats_than_the_ratio_asks_for_are_told() -> None:
    def record(step: int, *ids: str) -> Any:
        return type("Record", (), {"step": step, "epoch": 0, "ids": ids})()

    check = OrderCheck({"a": Path("a.jpg"), "b": Path("b.jpg")}, {"a": 2})
    assert check.look(record(1, "a", "b")) is None
    assert check.look(record(2, "a")) is None
    found = check.look(record(3, "a"))
    assert found is not None
    assert "each image should come 2 times at most" in found.what
    again = OrderCheck({"b": Path("b.jpg")}, {"a": 2})
    assert again.look(record(1, "b")) is None
    assert again.look(record(2, "b")) is not None
