"""Spikes are found where one was planted, in the diary too, and nowhere in what is merely noisy."""

from __future__ import annotations

import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_curves import healthy

from onestage.experiments.spikes import MINIMUM, Rolling, Spikes

Row = dict[str, Any]
values = st.lists(st.floats(-5, 5, allow_nan=False), min_size=1, max_size=60)


def noisy(steps: int, seed: int = 0, noise: float = 0.15) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        {
            "step": step, "epoch": step // 20, "loss": 3 * float(np.exp(rng.normal(0, noise))), "images": 16,
            "grad_norm": 5 * float(np.exp(rng.normal(0, 2 * noise))), "lr": {"heads": 1e-3},
            "positives": int(400 * np.exp(rng.normal(0, noise))),
        }
        for step in range(1, steps + 1)
    ]  # fmt: skip


def seen(rows: list[Row], spikes: Spikes | None = None) -> list[tuple[int, str]]:
    spikes = spikes or Spikes()
    return [(row["step"], spike.what) for row in rows for spike in spikes.look(row)]


@given(values, st.integers(1, 40))
def test_the_rolling_numbers_are_those_of_the_last_values(drawn: list[float], window: int) -> None:
    rolling = Rolling(window)
    for value in drawn:
        rolling.add(value)
    last = drawn[-window:]
    assert rolling.order == last
    assert rolling.median() == pytest.approx(statistics.median(last))
    median = rolling.median()
    rank = sorted(abs(value - median) for value in last)[len(last) // 2]  # the upper of two in the middle
    tail = sorted(last)[math.ceil(0.975 * len(last)) - 1] - median
    assert rolling.deviation(median) == pytest.approx(max(1.4826 * rank, tail / 1.96))


def test_the_deviation_of_normal_values_is_their_standard_deviation() -> None:
    drawn = np.random.default_rng(0).normal(2.0, 0.3, 5000)
    rolling = Rolling(5000, drawn.tolist())
    assert rolling.deviation(rolling.median()) == pytest.approx(0.3, rel=0.05)


def test_the_explosion_of_diary_000_is_found(shared: Path) -> None:
    diary = (shared.parent / "diaries" / "faceboxes-aflw-wider.md").read_text(encoding="utf-8")
    lines = re.findall(r"loc_loss:([\d.]+) conf_loss:([\d.]+), pos_num:(\d+)", diary)
    parsed = [(float(loc) + float(conf), int(n)) for loc, conf, n in lines]
    at = next(i for i, (loss, _) in enumerate(parsed) if loss > 100)
    assert parsed[at][0] == pytest.approx(155.456, abs=1e-3)
    assert parsed[at][1] == 2528
    before = parsed[at + 1 :]  # the same leg: batch 32, 20 to 53 positives per image
    assert [round(n / 32) for _, n in before] == [35, 53, 20]
    rng = np.random.default_rng(0)
    rows = [
        {"step": i + 1, "loss": loss * float(np.exp(rng.normal(0, 0.1))), "positives": n, "images": 32, "lr": 1e-3}
        for i, (loss, n) in enumerate(before * 20)
    ]
    spikes = Spikes()
    assert seen(rows, spikes) == []
    found = {spike.what: spike for spike in spikes.look(rows[-1] | {"loss": parsed[at][0], "positives": 2528})}
    assert set(found) == {"loss", "positives"}
    assert found["positives"].value == 79.0
    assert found["positives"].expected == pytest.approx(35.0)
    assert found["loss"].sigmas > 8
    assert 2.5 < found["loss"].expected < 4.5


@pytest.mark.parametrize(
    ("what", "key", "factor"), [("loss", "loss", 30), ("grad_norm", "grad_norm", 300), ("positives", "positives", 20)]
)
def test_each_spike_is_found_and_not_learnt(what: str, key: str, factor: float) -> None:
    rows = noisy(400)
    for at in (200, 210, 211, 300):
        rows[at - 1] = rows[at - 1] | {key: rows[at - 1][key] * factor}
    spikes = Spikes()
    assert seen(rows, spikes) == [(at, what) for at in (200, 210, 211, 300)]
    assert max(spikes.past[what].order) < math.log(10 * statistics.median(row[key] for row in rows))


@pytest.mark.parametrize("noise", [0.01, 0.15, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_noise_is_no_spike(noise: float, seed: int) -> None:
    assert seen(noisy(1500, seed, noise)) == []


@pytest.mark.parametrize("draw", ["laplace", "gamma", "lognormal", "student5"])
def test_heavy_tails_are_hardly_ever_spikes(draw: str) -> None:
    rng = np.random.default_rng(1)
    n = 4000
    logs = {
        "laplace": rng.laplace(0, 0.3, n), "gamma": np.log(rng.gamma(2, 1, n)), "lognormal": rng.normal(0, 1, n),
        "student5": 0.1 * rng.standard_t(5, n),
    }[draw]  # fmt: skip
    rows = [{"step": i + 1, "loss": float(np.exp(value)), "lr": 1e-3} for i, value in enumerate(logs)]
    assert len(seen(rows)) <= (2 if draw == "student5" else 0)


@pytest.mark.parametrize("kind", ["ssd", "yolo"])
@pytest.mark.parametrize("noise", [0.02, 0.12, 0.4])
def test_healthy_runs_have_no_spike(kind: str, noise: float) -> None:
    assert seen(healthy(1200, 1, kind, noise).steps) == []


def test_nothing_is_a_spike_before_enough_is_known() -> None:
    rows = noisy(MINIMUM)
    rows[-1] |= {"loss": 1e6}
    assert seen(rows) == []
    rows = [*noisy(MINIMUM), {"step": MINIMUM + 1, "loss": 1e6}]
    assert seen(rows) == [(MINIMUM + 1, "loss")]


CHANGES: list[Row] = [{"lr": {"heads": 1e-2}}, {"stage": 2}, {"size": [608, 608]}, {"epoch": 90}]


@pytest.mark.parametrize("change", CHANGES)
def test_a_new_chapter_is_no_spike(change: Row) -> None:
    rows = noisy(200)
    later = [row | {"step": row["step"] + 200, "loss": 4 * row["loss"]} for row in noisy(100, 1)]
    assert (201, "loss") in seen(rows + later)
    assert seen(rows + [row | change for row in later], Spikes(calm_epoch=90)) == []


def test_an_explosion_in_a_new_chapter_is_a_spike_all_the_same() -> None:
    rows = noisy(200)
    assert (201, "loss") in seen([*rows, {"step": 201, "loss": 155.0, "lr": {"heads": 1e-2}}])


def test_the_rates_of_a_warm_up_open_no_chapters() -> None:
    rows = [row | {"lr": 1e-3 * min(1, (row["step"] / 100) ** 4)} for row in noisy(150)]
    spikes = Spikes(warmup=100)
    assert seen(rows, spikes) == []
    assert spikes.chapters == 0


def test_a_level_that_stays_is_learnt() -> None:
    rows = noisy(200) + [row | {"step": row["step"] + 200, "loss": 20 * row["loss"]} for row in noisy(200, 1)]
    found = seen(rows)
    assert found[0] == (201, "loss")
    assert len(found) <= 25
    assert found[-1][0] <= 226


def test_numbers_that_are_none_are_passed_over() -> None:
    rows = noisy(100)
    for bad in (math.nan, math.inf, -1.0, 0.0, None, "nan"):
        rows.append(
            {"step": 101, "loss": bad, "grad_norm": bad, "positives": bad, "images": bad, "lr": bad, "epoch": bad}
        )
    assert seen(rows) == []
    assert Spikes().look({}) == []


@settings(max_examples=20)
@given(st.integers(1, 399), st.floats(1e-3, 1e3))
def test_saved_state_and_scale_change_nothing(at: int, scale: float) -> None:
    rows = noisy(400)
    rows[249] |= {"loss": 200.0}
    expected = seen(rows)
    assert expected == [(250, "loss")]
    spikes, found = Spikes(), []
    for row in rows:
        found += [(row["step"], spike.what) for spike in spikes.look(row | {"loss": scale * row["loss"]})]
        if row["step"] == at:
            spikes = Spikes.from_dict(json.loads(json.dumps(spikes.to_dict())))
    assert found == expected


def test_memory_is_constant_and_what_is_asked_is_checked() -> None:
    spikes = Spikes(window=50)
    for row in noisy(300):
        spikes.look(row | {"size": row["step"]})
    assert {len(past) for past in spikes.past.values()} == {50}
    assert len(spikes.sizes) == 64
    for wrong in ({"sigmas": 0.0}, {"window": 3}):
        with pytest.raises(ValueError, match="expected sigmas"):
            Spikes(**wrong)
