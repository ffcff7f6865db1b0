"""Recipe in, finished run out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onestage.errors import DataError
from onestage.experiments.run import Run
from onestage.experiments.truth import write_truth
from onestage.training.machine import environment
from onestage.training.plan import Plan, ask, make_plan
from onestage.training.recipe import Recipe
from onestage.training.session import Session
from onestage.training.state import load_state
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
    run.write_asked(dict(keys))
    run.write_recipe(plan.recipe.as_dict())
    run.write_findings([finding.as_dict() for finding in (*plan.opened.findings, *plan.foresight)])
    val = plan.opened.val
    write_truth(run, val.images, val.annotations, plan.opened.classes)
    run.update(**_facts(plan))
    return Session(run, plan, watcher or Watcher()).go()


def resume(run: Run, *, watcher: Watcher | None = None) -> Run:
    """Go on with a run that was stopped, from its last saved state to the end its recipe names."""
    state = load_state(run)
    recipe = Recipe.recorded(run.recipe)
    plan = make_plan(recipe, weights=False)
    _refuse_other_data(run, plan)
    return Session(run, plan, watcher or Watcher()).go(state)


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
