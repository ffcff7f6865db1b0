"""Looks at every row a run writes and tells what its user should know while it is still running."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onestage.data.order import most_often
from onestage.experiments.curves import Facts, Watch
from onestage.experiments.run import Run
from onestage.models.detector import Detector, Truth
from onestage.records import Annotations, Finding
from onestage.training.filtered import counted
from onestage.training.loop.loop import DETAILS
from onestage.training.loop.step_record import StepRecord
from onestage.training.order_check import OrderCheck
from onestage.training.plan import Plan

# At these steps, every so many after, and at the end of each stage frozen weights are compared with what they were.
STILL_FIRST, STILL = (1, 10, 25, 50), 100


class Still:
    """Frozen tensors as they were when their stage began, and how far they have moved since.

    They must not: a part whose weights or norm statistics change though it is frozen is no longer the one that was
    trained before, and two runs that differ in what they froze do not differ in that alone.
    """

    def __init__(self, detector: Detector, frozen: Sequence[nn.Module]) -> None:
        inside = {id(buffer) for module in frozen for buffer in module.buffers()}
        kept = set(detector.state_dict())
        named: list[tuple[str, Tensor]] = [(name, p) for name, p in detector.named_parameters() if not p.requires_grad]
        named += [(name, b) for name, b in detector.named_buffers() if id(b) in inside and name in kept]
        self.now: dict[str, Tensor] = {name: t.detach() for name, t in named if t.is_floating_point()}
        self.before = {name: tensor.clone() for name, tensor in self.now.items()}

    @torch.no_grad()
    def moved(self) -> dict[str, float]:
        """The largest change of a value in each tensor that changed at all."""
        names = list(self.now)
        if not names:
            return {}
        changes = torch._foreach_sub([self.now[name] for name in names], [self.before[name] for name in names])
        most = torch.stack([change.abs().max() if change.numel() else change.sum() for change in changes]).tolist()
        return {name: value for name, value in zip(names, most, strict=True) if value != 0}


class Lookout:
    """Keeps the live findings of a run; `tell` gets each once, findings.json holds them beside those of the data."""

    def __init__(self, run: Run, plan: Plan, tell: Callable[[Finding], None]) -> None:
        self.run, self.tell, self.filtered = run, tell, plan.filtered
        counts = np.bincount(
            np.concatenate([truth.labels for truth in plan.opened.train.annotations.values()] or [np.zeros(0, int)]),
            minlength=len(plan.opened.classes),
        )
        self.facts = Facts.of(
            plan.recipe.as_dict(), run.info, class_counts=tuple(map(float, counts)),
            priors=_priors(plan.detector), steps=plan.steps, steps_per_epoch=plan.steps_per_epoch,
            images=len(plan.opened.train),
        )  # fmt: skip
        self.watch = Watch(self.facts)
        self.foreseen = {finding.code for finding in plan.foresight}
        self.still: Still | None = None
        train = plan.opened.train
        self.order = OrderCheck({image.id: image.path for image in train.images}, most_often(train))
        self.ends = {leg.first_step + leg.steps for leg in plan.legs}

    def enter(self, detector: Detector, frozen: Sequence[nn.Module]) -> None:
        """A stage begins, with these parts frozen."""
        self.still = Still(detector, frozen)

    def complete(self, record: StepRecord) -> None:
        """Add to the record what is looked at now and then: room on the disk, frozen tensors that moved."""
        if record.step % DETAILS == 0:
            record.extra["disk_free"] = shutil.disk_usage(self.run.folder).free
        due = record.step % STILL == 0 or record.step in self.ends or record.step in STILL_FIRST
        if due and self.still is not None and (moved := self.still.moved()):
            record.extra["moved"] = moved

    def step(self, record: StepRecord, row: Mapping[str, Any]) -> None:
        """Look at which images a step was made of, and at its row of steps.jsonl."""
        if (finding := self.order.look(record)) is not None:
            self._keep([finding])
        self._keep(self.watch.step(row))

    def evaluated(self, row: Mapping[str, Any], confusion: Mapping[str, Mapping[str, float]]) -> None:
        """Look at a row of results.csv, and at which class was taken for which."""
        self._keep(self.watch.evaluated({**row, "confusion": confusion}))

    def add(self, finding: Finding) -> None:
        """Keep and tell a finding of someone else."""
        self._keep([finding])

    def sums(self) -> dict[str, Any]:
        """What run.json keeps of all rows together."""
        return counted(self.run, self.filtered)

    def _keep(self, findings: Sequence[Finding]) -> None:
        findings = [finding for finding in findings if finding.code not in self.foreseen]
        if not findings:
            return
        known = self.run.findings
        new = [finding.as_dict() for finding in findings]
        self.run.write_findings([*known, *(finding for finding in new if finding not in known)])
        for finding in findings:
            self.tell(finding)

    def state(self) -> dict[str, Any]:
        """All that has been seen, as plain data."""
        return self.watch.to_dict()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of `state`."""
        self.watch = Watch.from_dict(self.facts, state)
        self.order.forget()


def _priors(detector: Detector) -> int:
    """How many priors an image has."""
    nothing = Truth.of(Annotations.empty(), next(detector.parameters()).device)
    return len(detector.assign([nothing]).boxes)
