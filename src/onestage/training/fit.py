"""Recipe in, finished run out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onestage.errors import DataError, UsageError
from onestage.experiments.run import Run
from onestage.experiments.segments import facts, inexact
from onestage.experiments.truth import write_truth
from onestage.training.changes import Changes, Progress, changed_recipe, changes
from onestage.training.machine import environment
from onestage.training.plan import Plan, ask, make_plan, steps_per_epoch
from onestage.training.recipe import Recipe
from onestage.training.session import Session
from onestage.training.state import Saved, held_by_us, load_state, refuse_edited_recipe, tidy
from onestage.training.watcher import Watcher


def fit(
    keys: Mapping[str, Any], *, root: Path | None = None, watcher: Watcher | None = None, prefix: str | None = None
) -> Run:  # fmt: skip
    """Train as the flat dotted recipe `keys` say and judge the result; the run folder it wrote.

    A run without a name of its own is called `prefix`-NNN, model-data-NNN by default.

    Raises RecipeError, DataError, ModelError before anything is written; DivergedError and StorageError in between,
    with the run's status saying so and the last saved state kept.
    """
    recipe = ask(keys)
    plan = make_plan(recipe)
    prefix = prefix or f"{recipe.model}-{Path(recipe.data).expanduser().resolve().name or 'data'}"
    run = Run.create(root, recipe.name, prefix)
    with held_by_us(run):
        run.write_asked(dict(keys))
        _introduce(run, plan)
        return Session(run, plan, watcher or Watcher()).go(segment=_place(plan))


def resume(run: Run, keys: Mapping[str, Any] | None = None, *, watcher: Watcher | None = None) -> Run:
    """Go on with a run that was stopped, from its last saved state to the end its recipe names.

    The flat dotted `keys` change its recipe from here on; what may change is told in `training.changes`. A finished run
    without changes is left as it is. A run that was killed before its first state begins again.

    Raises UsageError where another process trains the run, RecipeError for changes that cannot be, DataError for data
    that is not what it was, ModelError for states that cannot be read; nothing is changed then.
    """
    watcher = watcher or Watcher()
    with held_by_us(run):
        if not run.recipe:
            return _begin_again(run, keys or {}, watcher)
        saved = load_state(run)
        if saved is not None:
            refuse_edited_recipe(run, saved)
        old = Recipe.recorded(run.recipe)
        progress = _progress(run, old, saved)
        new = changed_recipe(old, keys or {}, progress)
        if run.info.get("status") == "finished" and new == old:
            return run
        plan = make_plan(new, weights=saved is None)
        _refuse_other_data(run, plan)
        told = changes(old, plan.recipe, progress)
        place = _place(plan)
        reasons = [*inexact(_before(run), place), *told.reasons] if saved is not None else []
        tidy(run, saved)
        if saved is None:
            _introduce(run, plan)
        elif told.changed:
            run.write_recipe(plan.recipe.as_dict())
            run.update(data={"root": str(plan.opened.train.root)}, protocol=list(plan.recipe.validation.protocols))
        segment = {**place, "exact": not reasons, **({"reasons": reasons} if reasons else {}),
                   **({"changes": told.changed} if told.changed else {})}  # fmt: skip
        watcher.told([*(saved.said if saved is not None else ()), *_in_words(told, reasons)])
        return Session(run, plan, watcher).go(None if saved is None else saved.state, segment)


def _begin_again(run: Run, keys: Mapping[str, Any], watcher: Watcher) -> Run:
    """Train a run that was killed before it had written its recipe."""
    if not run.asked:
        raise UsageError(
            f"run {run.name} was ended before it had written what it is", hint="start it again under another name"
        )
    plan = make_plan(ask({**run.asked, **keys}))
    _introduce(run, plan)
    return Session(run, plan, watcher).go(segment=_place(plan))


def _introduce(run: Run, plan: Plan) -> None:
    """Write into the run folder what is known before the first step."""
    run.write_recipe(plan.recipe.as_dict())
    run.write_findings([finding.as_dict() for finding in (*plan.opened.findings, *plan.foresight)])
    val = plan.opened.val
    write_truth(run, val.images, val.annotations, plan.opened.classes)
    run.update(**_facts(plan))


def _progress(run: Run, recipe: Recipe, saved: Saved | None) -> Progress:
    images = int(run.info.get("data", {}).get("train", {}).get("images", 0))
    best = str(run.weights_dir / "best.safetensors")
    return Progress(0 if saved is None else saved.step, steps_per_epoch(images, recipe.batch), best)


def _place(plan: Plan) -> dict[str, Any]:
    """Where this process runs, as a segment keeps it."""
    return facts(environment(plan.device, str(plan.recipe.precision), {}))


def _before(run: Run) -> dict[str, Any]:
    """Where the steps up to the state were done; segments of earlier versions did not say, but run.json did."""
    info = run.info
    return {**facts(info.get("environment", {})), **(info.get("segments") or [{}])[-1]}


def _in_words(told: Changes, reasons: Sequence[str]) -> list[str]:
    """What the user should know of the changes, before the run goes on."""
    lines = [f"changed: {key} from {_spoken(was)} to {_spoken(now)}" for key, (was, now) in told.changed.items()]
    lines += told.notes
    if reasons:
        lines.append(f"from here on not bit for bit the uninterrupted run: {'; '.join(reasons)}")
    return lines


def _spoken(value: Any) -> str:
    return "automatic" if value is None else str(value)


def _refuse_other_data(run: Run, plan: Plan) -> None:
    """DataError where the images or boxes are not those the run began with: going on would be another run."""
    began = run.info.get("data", {})
    problems = [
        f"{name}: {began[name]['images']} images with {began[name]['boxes']} boxes when the run began, "
        f"{len(part)} with {part.boxes} now"
        for name, part in (("train", plan.opened.train), ("val", plan.opened.val))
        if name in began and began[name]["fingerprint"] != part.fingerprint()
    ]
    if problems:
        raise DataError(
            f"the data of run {run.name} has changed since it began", problems=problems,
            hint="put the data back as it was, or start a new run",
        )  # fmt: skip


def _facts(plan: Plan) -> dict[str, Any]:
    """What run.json says of code, data, environment and model."""
    opened, recipe = plan.opened, plan.recipe
    sets = {
        name: {
            "images": len(part),
            "boxes": part.boxes,
            "fingerprint": part.fingerprint(),
            "split": opened.split_made or part.split,
        }
        for name, part in (("train", opened.train), ("val", opened.val))
    }
    return {
        "data": {"root": str(opened.train.root), "format": opened.format, "described": opened.described,
                 "classes": list(opened.classes), **sets},
        "environment": environment(plan.device, str(recipe.precision), plan.measured),
        "groups": [
            {"stage": leg.name, "groups": [row.as_dict() for row in rows]} for leg, rows in plan.groups
        ],
        "seed": recipe.seed, "protocol": list(recipe.validation.protocols),
        "model": {"name": recipe.model, "parameters": sum(p.numel() for p in plan.detector.parameters()),
                  "weights": plan.report.as_dict()},
    }  # fmt: skip
