"""What is wrong with a run's learning rates, seen before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onestage.records import Finding, Severity, Where
from onestage.training.recipe import Recipe
from onestage.training.recipe.spans import in_steps
from onestage.training.recipe.stages import Leg, legs

# Below these rates weights of usual size (some 0.02) move by less than a thousandth of themselves in 100 steps.
NOTHING = {"sgd": 1e-6}
NOTHING_ADAM = 3e-7
# Part of a stage that may pass with the rate at nothing: the end of a polynomial does, and harms nobody.
TOLERATED = 1 / 3
HIGHEST = {"sgd": 1.0}
HIGHEST_ADAM = 0.1
# Without gradients, decay would shrink weights to a third within so many steps or fewer: gradients cannot hold that up.
SHRUNK_IN = 100
STRONG_L2 = 0.01
SAMPLES = 2000


def foresee(recipe: Recipe, steps_per_epoch: int) -> list[Finding]:
    """What will go wrong with the rates of a recipe whose `epochs` are chosen; empty for every sound one.

    Looks at each stage by itself: a rate at nothing, milestones where they cannot count, a warm-up that never ends,
    rates that no optimiser takes, decay that eats the weights, an average longer than the run.
    """
    findings: list[Finding] = []
    laid = legs(recipe, steps_per_epoch)
    for leg in laid:
        place = f"stage {leg.name!r}: " if len(laid) > 1 else ""
        key = f"stages[{leg.index}]." if recipe.stages else ""
        for look in (_rate, _nothing, _warmup, _milestones, _decay):
            findings += look(leg, place, key)
    findings += _average(recipe, sum(leg.steps for leg in laid))
    findings += _precision(recipe)
    return findings


def _precision(recipe: Recipe) -> Iterator[Finding]:
    if recipe.precision == "fp16" and recipe.device == "cpu":
        yield _finding(
            "fp16-on-cpu", "precision=fp16 on a CPU, which computes in other formats and converts at every operation",
            "a step takes many times as long as with fp32, and saves no memory worth it",
            "precision=bf16 or precision=fp32; left automatic, the faster of the two is taken",
        )  # fmt: skip


def _finding(
    code: str, what: str, consequence: str, remedy: str, severity: Severity = "warning", step: int | None = None,
    **evidence: Any,
) -> Finding:  # fmt: skip
    return Finding(code, severity, Where(step=step), what, consequence, remedy, evidence)


def _rate(leg: Leg, place: str, key: str) -> Iterator[Finding]:
    optimiser = leg.optimiser
    highest, limit = _highest(leg)
    if highest > limit:
        yield _finding(
            "lr-too-high", f"{place}lr {highest:g} with {optimiser.name}, which takes {limit:g} at most",
            "the weights jump instead of descending: the loss grows or is not a number within a few steps",
            f"a lower {key}optimiser.lr: 1e-3 is a good first try", lr=highest, limit=limit,
        )  # fmt: skip


def _highest(leg: Leg) -> tuple[float, float]:
    """The highest learning rate of any group, and what the optimiser takes."""
    optimiser = leg.optimiser
    highest = optimiser.lr * max([1.0, *optimiser.rates.values()])
    return highest, HIGHEST.get(optimiser.name, HIGHEST_ADAM)


def _nothing(leg: Leg, place: str, key: str) -> Iterator[Finding]:
    if leg.schedule.name == "random" or leg.steps < 1:
        return
    limit = NOTHING.get(leg.optimiser.name, NOTHING_ADAM)
    warmup = in_steps(leg.schedule.warmup or 0, leg.steps)
    stride = max(leg.steps // SAMPLES, 1)
    lrs = {step: leg.optimiser.lr * leg.share(leg.first_step + step) for step in range(warmup, leg.steps, stride)}
    low = [step for step, lr in lrs.items() if lr < limit]
    if len(low) <= TOLERATED * leg.steps / stride:
        return
    first, last = leg.first_step + low[0] + 1, leg.first_step + min(low[-1] + stride, leg.steps)
    count = round(len(low) * leg.steps / max(len(lrs), 1))
    worth = sorted(lrs[step] for step in low)
    shown = f"{worth[0]:.0e}" if worth[0] * 2 > worth[-1] else f"{worth[0]:.0e} to {worth[-1]:.0e}"
    yield _finding(
        "lr-at-nothing",
        f"{place}lr is {shown} from step {first} to {last}, {count} of its {leg.steps} steps; {leg.optimiser.name} "
        f"moves nothing below {limit:g}",
        "these steps leave the weights where they are: the stage will look as if training further had no effect",
        f"a higher {key}optimiser.lr, or a {key}schedule that falls later or less", step=first, lr=worth[0],
        steps=[first, last], count=count,
    )  # fmt: skip


def _warmup(leg: Leg, place: str, key: str) -> Iterator[Finding]:
    warmup = in_steps(leg.schedule.warmup or 0, leg.steps)
    if warmup >= leg.steps > 0 and warmup > 0:
        yield _finding(
            "warmup-too-long", f"{place}the warm-up takes {warmup} steps, the whole has {leg.steps}",
            f"lr never gets beyond {leg.optimiser.lr * leg.share(leg.first_step + leg.steps - 1):.1e} of "
            f"{leg.optimiser.lr:g}, and the schedule has no say", f"a shorter {key}schedule.warmup, or more epochs",
            warmup=warmup, steps=leg.steps,
        )  # fmt: skip


def _milestones(leg: Leg, place: str, key: str) -> Iterator[Finding]:
    schedule = leg.schedule
    origin = warmup = in_steps(schedule.warmup or 0, leg.steps)
    if schedule.origin == "start":
        origin = 0
    if schedule.name == "step" and (every := in_steps(schedule.every or 1, leg.steps)) + origin >= leg.steps:
        yield _beyond([every + origin], leg, place, f"{key}schedule.every")
    if schedule.name != "multi-step":
        return
    falls = [origin + in_steps(at, leg.steps) for at in schedule.milestones or ()]
    beyond = [at for at in falls if at >= leg.steps]
    counted = [at - leg.first_step for at in beyond if leg.first_step and 0 < at - leg.first_step < leg.steps]
    if counted:
        yield _finding(
            "counted-from-the-run", f"{place}milestones at {_listed(beyond)} of {leg.steps} steps: they lie within the "
            f"stage only when counted from the run's start (it begins at step {leg.first_step})",
            "lr does not fall in this stage: a stage's schedule counts from the stage's own start",
            f"{key}schedule.milestones=[{_listed(counted)}], or shares such as 0.7", milestones=beyond,
            first_step=leg.first_step,
        )  # fmt: skip
    elif beyond:
        yield _beyond(beyond, leg, place, f"{key}schedule.milestones")
    early = [at for at in falls if at < warmup < leg.steps]
    if early:
        yield _finding(
            "milestone-in-warmup", f"{place}milestones at {_listed(early)} lie within the warm-up of {warmup} steps",
            "lr rises to its highest value and falls at once: the highest rate is used for a single step or never",
            f"a shorter {key}schedule.warmup, later milestones, or {key}schedule.origin=warmup", milestones=early,
            warmup=warmup,
        )  # fmt: skip


def _beyond(steps: list[int], leg: Leg, place: str, key: str) -> Finding:
    return _finding(
        "milestone-beyond-end", f"{place}lr would fall at {_listed(steps)}, but there are {leg.steps} steps",
        "lr never falls there, and the last improvement that a lower rate brings does not come",
        f"an earlier {key} (steps, \"3 epochs\" or shares), or more epochs", milestones=steps, steps=leg.steps,
    )  # fmt: skip


def _decay(leg: Leg, place: str, key: str) -> Iterator[Finding]:
    optimiser = leg.optimiser
    decay = float(optimiser.decay or 0.0)
    highest, limit = _highest(leg)
    if highest > limit:  # told already, and by far the worse
        return
    if optimiser.name in ("adam", "nadam"):
        if decay >= STRONG_L2:
            yield _finding(
                "decay-too-strong", f"{place}decay {decay:g} with {optimiser.name}, which adds it to the gradient",
                "the penalty outweighs the gradient of the loss in most weights, and they shrink to nothing",
                f"{key}optimiser.name=adamw for decay of this size, or 1e-4", decay=decay,
            )  # fmt: skip
        return
    pull = optimiser.lr * decay / ((1 - optimiser.momentum) if optimiser.name == "sgd" else 1)
    if pull > 1 / SHRUNK_IN:
        yield _finding(
            "decay-too-strong", f"{place}lr {optimiser.lr:g} with decay {decay:g} takes {min(pull, 1):.1%} of every "
            "weight at each step", "weights shrink to nothing faster than gradients can build them up",
            f"a lower {key}optimiser.decay (5e-4 with sgd, 0.05 with adamw) or {key}optimiser.lr", decay=decay,
            lr=optimiser.lr, per_step=pull,
        )  # fmt: skip


def _average(recipe: Recipe, steps: int) -> Iterator[Finding]:
    window = 1 / (1 - recipe.ema)
    if recipe.ema > type(recipe).model_fields["ema"].default and window > steps:
        yield _finding(
            "ema-too-long", f"ema {recipe.ema:g} averages over {window:,.0f} steps, the run has {steps}",
            "the decay asked for is never reached: it grows with the steps done, and ends at "
            f"{(1 + steps) / (10 + steps):.4f}", f"ema={1 - 10 / max(steps, 20):.3g} or less, or more epochs", "note",
            window=window, steps=steps,
        )  # fmt: skip


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps))
