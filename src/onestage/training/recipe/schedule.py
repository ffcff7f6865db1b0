"""Learning rates by step: warm-up and schedules, darknet's policies among them; the optimiser's keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from onestage.training.recipe.spans import Span, in_steps, rising, spelled

# Keys that speak of one optimiser or schedule alone; with another they have no effect, which is an error.
OPTIMISER_KEYS: Mapping[str, tuple[str, ...]] = {
    "sgd": ("nesterov",), "adam": ("beta2", "eps"), "adamw": ("beta2", "eps"), "nadam": ("beta2", "eps"),
}  # fmt: skip
SCHEDULE_KEYS: Mapping[str, tuple[str, ...]] = {
    "cosine": ("final",), "linear": ("final",), "polynomial": ("power", "final"), "exponential": ("gamma",),
    "step": ("every", "factor"), "multi-step": ("milestones", "factor"), "constant": (), "random": ("power",),
    "sig": ("centre", "gamma"),
}  # fmt: skip
# darknet's words for what has another name here.
DARKNET = {"steps": "multi-step", "exp": "exponential", "poly": "polynomial"}
# Weight decay where the recipe leaves it open: decoupled with AdamW, an L2 term of the gradient with the others.
DECAY = {"adamw": 0.05, "sgd": 0.0005, "adam": 0.0, "nadam": 0.0}


class Optimiser(BaseModel):
    """Which optimiser moves the weights and how fast. `lr` is the highest learning rate of the schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal["adamw", "sgd", "adam", "nadam"] = Field("adamw", description="adamw, sgd, adam or nadam")
    lr: float = Field(1e-3, gt=0, description="highest learning rate, for the batch size given")
    backbone: float = Field(1.0, gt=0, le=1, description="the backbone's learning rate as a share of lr")
    rates: dict[str, float] = Field(
        default_factory=dict, description="share of lr by part, module or pattern; the last that fits counts"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum, or Adam's first beta")
    beta2: float | None = Field(None, ge=0, lt=1, description="second beta, not for sgd; automatic: 0.999")
    eps: float | None = Field(None, gt=0, description="Adam's epsilon, not for sgd; automatic: 1e-8")
    nesterov: bool = Field(False, description="Nesterov momentum, sgd only")
    decay: float | None = Field(
        None, ge=0, description="weight decay, not on norms and biases; automatic: adamw 0.05, sgd 0.0005, else 0"
    )

    @field_validator("rates", mode="before")
    @classmethod
    def _whole_names(cls, rates: Any) -> Any:
        return _joined(rates) if isinstance(rates, Mapping) else rates

    @field_validator("rates")
    @classmethod
    def _positive(cls, rates: dict[str, float]) -> dict[str, float]:
        wrong = [f"{word}: {share:g}" for word, share in rates.items() if share <= 0]
        if wrong:
            raise ValueError(f"expected shares above 0 ({', '.join(wrong)}); what shall not learn goes into freeze")
        return rates

    @model_validator(mode="after")
    def _live_keys(self) -> Optimiser:
        _refuse_dead(self, OPTIMISER_KEYS, f"with {self.name}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov has no effect without momentum: set momentum, or leave nesterov away")
        return self

    def completed(self) -> Optimiser:
        """The optimiser with every automatic value chosen."""
        chosen: dict[str, Any] = {"decay": DECAY[self.name] if self.decay is None else self.decay}
        if self.name != "sgd":
            chosen["beta2"] = 0.999 if self.beta2 is None else self.beta2
            chosen["eps"] = 1e-8 if self.eps is None else self.eps
        return self.model_copy(update=chosen)


class Schedule(BaseModel):
    """How the learning rate goes over the steps of a run, or of a stage.

    Spans of time are written as a whole number of steps, "3 epochs", "10 %" or a share; a completed schedule states
    them in steps. The shares follow torch.optim.lr_scheduler and get_current_rate of pjreddie's and AlexeyAB's
    darknet; how they differ is told in docs/schedules.md.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Literal[
        "cosine", "linear", "polynomial", "exponential", "step", "multi-step", "constant", "random", "sig"
    ] = Field("cosine", description=", ".join(SCHEDULE_KEYS))  # fmt: skip
    warmup: Span | None = Field(
        None,
        description='span of the warm-up: 500, "3 epochs", "5 %"; automatic: a tenth of the run, at most 500 steps',
    )
    start: float = Field(0.001, ge=0, le=1, description="share of lr at which the warm-up starts")
    rise: float = Field(1.0, gt=0, description="power of the warm-up: 1 linear; 4 with start=0 is darknet's burn-in")
    origin: Literal["start", "warmup"] = Field(
        "start", description="the schedule counts from the start, or the warm-up's end"
    )
    final: float | None = Field(
        None, ge=0, le=1, description="share of lr at the end; automatic: 0.02, polynomial 0"
    )  # fmt: skip
    milestones: tuple[Span, ...] | None = Field(
        None, description="multi-step: when lr falls; automatic: at 2/3 and 5/6 of the run"
    )
    every: Span | None = Field(None, description="step: span between falls of lr; automatic: a third of the run")
    factor: float | tuple[float, ...] | None = Field(
        None, description="step, multi-step: lr is multiplied by it, or by one for each milestone; automatic: 0.1"
    )
    gamma: float | None = Field(
        None,
        gt=0,
        description="exponential: lr is multiplied by it each step; automatic: so that 0.02 is left. sig: steepness",
    )
    power: float | None = Field(None, gt=0, description="polynomial, random: the power; automatic: 1")
    centre: Span | None = Field(None, description="sig: when half of lr is left; automatic: the middle")

    @field_validator("name", mode="before")
    @classmethod
    def _in_our_words(cls, name: Any) -> Any:
        return DARKNET.get(name, name) if isinstance(name, str) else name

    @model_validator(mode="after")
    def _live_keys(self) -> Schedule:
        _refuse_dead(self, SCHEDULE_KEYS, f"with the {self.name} schedule")
        if self.origin == "warmup" and self.name in ("constant", "random"):
            raise ValueError(f"origin has no effect with the {self.name} schedule: leave it away")
        factors = self.factor if isinstance(self.factor, tuple) else ()
        if factors and len(factors) != len(self.milestones or ()):
            raise ValueError(f"factor: {len(factors)} values for {len(self.milestones or ())} milestones: one for each")
        if any(factor <= 0 for factor in factors) or (isinstance(self.factor, float) and not 0 < self.factor < 1):
            raise ValueError("factor: expected a value between 0 and 1 (in a list, one for each milestone, above 0)")
        if self.name == "exponential" and self.gamma is not None and self.gamma > 1:
            raise ValueError("gamma: expected at most 1, or lr grows without end")
        if not rising(self.milestones or ()):
            said = ", ".join(map(str, self.milestones or ()))
            raise ValueError(f"milestones: expected none before the one that it follows, got [{said}]")
        if self.every is not None and in_steps(self.every, 10**9, 10**6) < 1:
            raise ValueError("every: expected at least one step")
        return self

    def completed(self, steps: int, steps_per_epoch: int = 0) -> Schedule:
        """The schedule of a run or stage of `steps` with every automatic value chosen and every span in steps."""
        chosen: dict[str, Any] = {"warmup": min(500, steps // 10)}
        chosen |= {"final": {"polynomial": 0.0}.get(self.name, 0.02), "milestones": (2 / 3, 5 / 6), "factor": 0.1}
        chosen |= {"every": max(math.ceil(steps / 3), 1), "power": 1.0, "centre": 0.5}
        chosen["gamma"] = 0.02 ** (1 / max(steps, 1)) if self.name == "exponential" else 12 / max(steps, 1)
        live = ("warmup", *SCHEDULE_KEYS[self.name])
        kept = {key: chosen[key] if getattr(self, key) is None else getattr(self, key) for key in live}
        for key in {"warmup", "every", "centre"} & kept.keys():
            kept[key] = spelled(max(in_steps(kept[key], steps, steps_per_epoch), int(key == "every")))
        if "milestones" in kept:
            laid = [in_steps(at, steps, steps_per_epoch) for at in kept["milestones"]]
            order = sorted(range(len(laid)), key=laid.__getitem__)  # steps, epochs and shares may be mixed
            kept["milestones"] = tuple(spelled(laid[place]) for place in order)
            if isinstance(kept["factor"], tuple):
                kept["factor"] = tuple(kept["factor"][place] for place in order)
        return self.model_copy(update=kept)

    def share(self, step: int, steps: int, seed: int = 0) -> float:
        """Share of lr at `step` (0-based, optimiser steps) of a run or stage of `steps`; a completed schedule only.

        In [0, 1], above 1 only where the recipe lists a factor above 1. `step` counts the updates done before this
        one, as torch's schedulers do. `seed` matters to `random` alone, whose share is a function of (seed, step).
        """
        warmup = in_steps(self.warmup or 0, steps)
        rise = 1.0 if step >= warmup else self._rise(step, warmup)
        if step < warmup and (self.origin == "warmup" or self.name not in ("cosine", "linear")):
            return rise  # darknet, too, leaves its policy aside until the burn-in is over
        begin = warmup if self.origin == "warmup" else 0
        return float(rise * self._curve(step - begin, steps - begin, steps, seed))

    def _rise(self, step: int, warmup: int) -> float:
        if self.rise == 1:
            return self.start + (1 - self.start) * (step + 1) / warmup
        return self.start + (1 - self.start) * float(((step + 1) / warmup) ** self.rise)

    def _curve(self, step: int, length: int, steps: int, seed: int) -> float:
        """The share without warm-up; `length` is how many steps the curve takes, `steps` the whole."""
        if self.name == "cosine":
            final = self.final or 0.0
            return final + (1 - final) * (1 + math.cos(math.pi * step / max(length, 1))) / 2
        if self.name in ("linear", "polynomial"):
            left = max(1 - step / max(length, 1), 0.0)
            final = self.final or 0.0
            return final + (1 - final) * (left if self.name == "linear" else left ** (self.power or 1.0))
        if self.name == "exponential":
            return float((self.gamma or 1.0) ** step)
        if self.name == "step":
            return float(self._factors()[0] ** (step // in_steps(self.every or 1, steps)))
        if self.name == "multi-step":
            return self._fallen(step, steps)
        if self.name == "random":
            import numpy as np

            return float(np.random.default_rng((seed, step)).random() ** (self.power or 1.0))
        if self.name == "sig":
            centre = in_steps(self.centre or 0, steps)
            return 1 / (1 + math.exp(min((self.gamma or 1.0) * (step - centre), 700.0)))
        return 1.0

    def _fallen(self, step: int, steps: int) -> float:
        milestones = [in_steps(at, steps) for at in self.milestones or ()]
        if not isinstance(self.factor, tuple):
            return float((self.factor or 0.1) ** sum(step >= at for at in milestones))
        return math.prod(factor for at, factor in zip(milestones, self.factor, strict=True) if step >= at)

    def _factors(self) -> tuple[float, ...]:
        return self.factor if isinstance(self.factor, tuple) else (self.factor or 0.1,)


def inherited(base: Mapping[str, Any], own: Mapping[str, Any], live: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The keys of a stage's optimiser or schedule: its `own` over those of the recipe that mean something to it.

    A stage that names another optimiser or schedule leaves behind what only the recipe's takes (`live`).
    """
    name = str(own.get("name", base.get("name")))
    takes = live.get(DARKNET.get(name, name))
    if takes is None:  # a misspelt name: told when it is validated
        return {**base, **own}
    special = {key for keys in live.values() for key in keys} - set(takes)
    return {**{key: value for key, value in base.items() if key not in special}, **own}


def _refuse_dead(group: BaseModel, live: Mapping[str, tuple[str, ...]], where: str) -> None:
    """ValueError for a key that is set and that another optimiser or schedule than the one named would read."""
    name = str(getattr(group, "name"))  # noqa: B009  # both groups have one
    for key in dict.fromkeys(key for keys in live.values() for key in keys):
        if key in live[name] or getattr(group, key) in (None, False):
            continue
        takes = [other for other, keys in live.items() if key in keys]
        raise ValueError(
            f"{key} has no effect {where}: leave it away, or set it to null ({', '.join(takes)} would take it)"
        )


def _joined(rates: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names, as `optimiser.rates.neck.lateral=2` gives them, in one word each."""
    joined: dict[str, Any] = {}
    for name, value in rates.items():
        joined |= _joined(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return joined
