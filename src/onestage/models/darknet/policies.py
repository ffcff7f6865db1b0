"""darknet's learning-rate policies as schedules of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onestage.errors import ModelError
from onestage.models.darknet.cfg import Section
from onestage.models.darknet.unfollowed import Note

# darknet's values where a cfg says nothing.
LR, POWER = 0.001, 4.0


def _steps(net: Section, notes: list[Note]) -> dict[str, Any]:
    at, factors = net.numbers("steps"), net.reals("scales")
    if not at or len(at) != len(factors):
        raise ModelError(f"{net.at('steps')}: expected as many steps as scales, got {len(at)} and {len(factors)}")
    if min(factors) <= 0 or list(at) != sorted(at):
        raise ModelError(f"{net.at('steps')}: expected rising steps and scales above 0")
    equal = len(set(factors)) == 1 and factors[0] < 1
    return {"name": "multi-step", "milestones": [max(step, 0) for step in at],
            "factor": factors[0] if equal else list(factors)}  # fmt: skip


def _step(net: Section, notes: list[Note]) -> dict[str, Any]:
    every, factor = net.number("step", 1), net.real("scale", 1.0)
    if every < 1 or not 0 < factor <= 1:
        raise ModelError(
            f"{net.at('scale')}: expected a step from 1 and a scale above 0, 1 at most, got {every}, {factor:g}"
        )
    return {"name": "step", "every": every, "factor": factor} if factor < 1 else {}


def _exp(net: Section, notes: list[Note]) -> dict[str, Any]:
    return {"name": "exponential", "gamma": positive(net, "gamma")}


def _sig(net: Section, notes: list[Note]) -> dict[str, Any]:
    return {"name": "sig", "gamma": positive(net, "gamma"), "centre": net.number("step", 1)}


def _poly(net: Section, notes: list[Note]) -> dict[str, Any]:
    return {"name": "polynomial", "power": positive(net, "power", POWER), "final": 0.0}


def _random(net: Section, notes: list[Note]) -> dict[str, Any]:
    return {"name": "random", "power": positive(net, "power", POWER)}


def _sgdr(net: Section, notes: list[Note]) -> dict[str, Any]:
    """AlexeyAB's cosine; its restarts are not there."""
    whole = net.number("max_batches", 0)
    cycle = net.number("sgdr_cycle", whole)
    if cycle < whole:
        notes.append(Note("sgdr_cycle", net.lines["sgdr_cycle"], net.options["sgdr_cycle"], (
            "warm restarts are not there: one cosine over the whole run. Stages, each with a cosine of its own, restart"
        )))  # fmt: skip
    least = net.real("learning_rate_min", 1e-5, 0.0)
    return {"name": "cosine", "final": min(least / positive(net, "learning_rate", LR), 1.0)}


POLICIES: Mapping[str, Callable[[Section, list[Note]], dict[str, Any]]] = {
    "constant": lambda net, notes: {}, "step": _step, "steps": _steps, "exp": _exp, "poly": _poly, "random": _random,
    "sig": _sig, "sgdr": _sgdr,
}  # fmt: skip


def positive(net: Section, key: str, default: float = 1.0) -> float:
    """A number above 0, `default` where the cfg says none; ModelError for another."""
    value = net.real(key, default)
    if value <= 0:
        raise ModelError(f"{net.at(key)}: expected a number above 0, got {value:g}")
    return value
