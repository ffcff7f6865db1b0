"""The table of groups on a terminal, and what is foreseen, one line each."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from onestage.cli.findings import explain_findings
from onestage.cli.groups import show_groups
from onestage.cli.terminal import Reader, Terminal
from onestage.training.loop.groups import GroupRow
from onestage.training.recipe import build
from onestage.training.recipe.foresight import foresee
from onestage.training.recipe.stages import legs

ROWS = [
    GroupRow("heads", 20, 32_640, True, 1e-3, 0.05, "-"),
    GroupRow("heads.no_decay", 30, 2725, True, 1e-3, 0.0, "updated"),
    GroupRow("backbone (frozen)", 144, 2_958_848, False, None, None, "kept"),
]  # fmt: skip


def shown(recipe: Any, per_epoch: int) -> list[str]:
    stream = io.StringIO()
    terminal = Terminal()
    terminal.console = Reader(file=stream, width=120, highlight=False)
    plan: Any = SimpleNamespace(groups=[(leg, ROWS) for leg in legs(recipe, per_epoch)])
    show_groups(terminal, plan)
    explain_findings(terminal, foresee(recipe, per_epoch))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_run_of_one_stage() -> None:
    lines = shown(build({"data": "x", "epochs": 30}), 20)
    assert lines == [
        "30 epochs, 600 steps, adamw, cosine, warm-up 60 steps",
        "group              norms    tensors  parameters      lr  decay",
        "heads              -             20      32,640   0.001   0.05",
        "heads.no_decay     updated       30       2,725   0.001      0",
        "backbone (frozen)  kept         144   2,958,848  frozen      –",
    ]


def test_stages_are_named_with_their_schedules_and_findings_follow() -> None:
    stages = [
        {"name": "heads", "epochs": 3, "optimiser": {"name": "sgd"}, "schedule": {"name": "step", "every": 40}},
        {"epochs": 5, "optimiser": {"lr": 1e-9}, "schedule": {"name": "steps", "milestones": [0.5], "warmup": 0}},
    ]
    lines = shown(build({"data": "x", "stages": stages}), 20)
    assert lines[0] == "stage 1 of 2, heads: 3 epochs, 60 steps, sgd, step every 40 steps, warm-up 6 steps"
    assert lines[5] == "stage 2 of 2, stage 2: 5 epochs, 100 steps, adamw, multi-step at 50"
    assert len(lines) == 12
    assert lines[-2].startswith("warning: stage 'stage 2': lr is 1e-10 to 1e-09 from step 61 to 160")
    assert lines[-1].endswith("(docs/findings.md#lr-at-nothing)")
