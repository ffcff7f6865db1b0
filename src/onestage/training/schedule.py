"""Learning rates by step: warm-up, step and cosine schedules; which optimiser follows them."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Optimiser(BaseModel):
    """Which optimiser moves the weights and how fast. `lr` is the highest learning rate of the schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["adamw", "sgd"] = Field("adamw", description="adamw or sgd")
    lr: float = Field(1e-3, gt=0, description="highest learning rate, for the batch size given")
    backbone: float = Field(1.0, gt=0, le=1, description="the backbone's learning rate as a share of lr")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum, or AdamW's first beta")
    nesterov: bool = Field(False, description="Nesterov momentum, sgd only")
    decay: float = Field(0.05, ge=0, description="weight decay, not on norms and biases")

    @model_validator(mode="after")
    def _live_keys(self) -> Optimiser:
        if self.nesterov and self.name != "sgd":
            raise ValueError("nesterov has no effect with adamw: take optimiser.name=sgd or leave it away")
        return self


class Schedule(BaseModel):
    """How the learning rate goes over the steps of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["cosine", "step", "constant"] = Field("cosine", description="cosine, step or constant")
    warmup: int | None = Field(
        None, ge=0, description="steps of linear warm-up; automatic: a tenth of the run, at most 500"
    )
    start: float = Field(0.001, gt=0, le=1, description="share of lr at which the warm-up starts")
    final: float | None = Field(None, ge=0, le=1, description="share of lr at the end, cosine only; automatic: 0.02")
    milestones: tuple[float, ...] | None = Field(
        None, description="shares of the run at which lr falls, step only; automatic: 2/3 and 5/6"
    )
    factor: float | None = Field(None, gt=0, lt=1, description="lr is multiplied by it at a milestone; automatic: 0.1")

    @model_validator(mode="after")
    def _live_keys(self) -> Schedule:
        dead = {"cosine": ("milestones", "factor"), "step": ("final",), "constant": ("final", "milestones", "factor")}
        for key in dead[self.name]:
            if getattr(self, key) is not None:
                raise ValueError(f"{key} has no effect with the {self.name} schedule: leave it away, or set it to null")
        if self.milestones is not None and not all(0 < share < 1 for share in self.milestones):
            raise ValueError("milestones are shares of the run: expected values between 0 and 1")
        return self

    def completed(self, steps: int) -> Schedule:
        """The schedule of a run of `steps` with every automatic value chosen."""
        chosen: dict[str, Any] = {"warmup": min(500, steps // 10) if self.warmup is None else self.warmup}
        if self.name == "cosine" and self.final is None:
            chosen["final"] = 0.02
        if self.name == "step":
            chosen["milestones"] = self.milestones or (2 / 3, 5 / 6)
            chosen["factor"] = self.factor or 0.1
        return self.model_copy(update=chosen)

    def share(self, step: int, steps: int) -> float:
        """Share of lr at `step` (0-based, optimiser steps) of a run of `steps`; a completed schedule only."""
        warmup = self.warmup or 0
        rise = 1.0 if step >= warmup else self.start + (1 - self.start) * (step + 1) / warmup
        if self.name == "cosine":
            final = self.final or 0.0
            return rise * (final + (1 - final) * (1 + math.cos(math.pi * step / max(steps, 1))) / 2)
        if self.name == "step":
            passed = sum(step >= round(milestone * steps) for milestone in self.milestones or ())
            return rise * float((self.factor or 0.1) ** passed)
        return rise
