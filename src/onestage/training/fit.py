"""Recipe in, finished run out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onestage.data.dataset import Dataset
from onestage.data.order import shares
from onestage.errors import DataError, UsageError
from onestage.experiments.naming import usual_prefix
from onestage.experiments.onlooker import Onlooker
from onestage.experiments.run import Run
from onestage.experiments.segments import done_by, facts, inexact
from onestage.experiments.storage import as_json, write_bytes
from onestage.experiments.truth import write_truth
from onestage.training.devices.launch import jobs
from onestage.training.devices.machine import choose_device, environment
from onestage.training.devices.ranks import Ranks, joined
from onestage.training.levels import levels_of
from onestage.training.plan import Plan, ask, plan_together, steps_per_epoch
from onestage.training.recipe import Recipe
from onestage.training.saving.changes import Changes, Progress, changed_recipe, changes
from onestage.training.saving.restarts import begun_by
from onestage.training.saving.state import (
    Saved,
    digest,
    held_by_us,
    load_state,
    refuse_edited_recipe,
    saved_steps,
    tidy,
)
from onestage.training.saving.stretches import in_force
from onestage.training.session import Session
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
    with joined(choose_device(recipe.device)) as ranks:
        watcher = watcher if watcher is not None and ranks.is_first else Watcher()
        known = [text for texts in ranks.gather(jobs()) for text in texts]
        if (begun := ranks.first(lambda: begun_by(known, keys, root))) is not None:
            watcher.told([f"this command began run {begun.name} before: going on with it"])
            return _resume(begun, {}, watcher, ranks)
        plan = plan_together(recipe, ranks)
        named = prefix or usual_prefix(plan.cfg or recipe.model, recipe.data)
        with _alone_in(ranks, lambda: Run.create(root, recipe.name, named)) as run:
            run.write_asked(dict(keys))
            run.update(jobs=list(dict.fromkeys(known)))
            ranks.first(lambda: _introduce(run, plan))
            return Session(run, plan, watcher, ranks).go(segment=_place(plan, ranks))


def resume(run: Run, keys: Mapping[str, Any] | None = None, *, watcher: Watcher | None = None) -> Run:
    """Go on with a run that was stopped, from its last saved state to the end its recipe names.

    The flat dotted `keys` change its recipe from here on; what may change is told in `training.saving.changes`. A
    finished run without changes is left as it is. A run that was killed before its first state begins again.

    Raises UsageError where another process trains the run, RecipeError for changes that cannot be, DataError for data
    that is not what it was, ModelError for states that cannot be read; nothing is changed then.
    """
    device = (keys or {}).get("device", run.recipe.get("device"))
    with joined(choose_device(device)) as ranks:
        return _resume(run, keys or {}, watcher if watcher is not None and ranks.is_first else Watcher(), ranks)


def _resume(run: Run, keys: Mapping[str, Any], watcher: Watcher, ranks: Ranks) -> Run:
    with _alone_in(ranks, lambda: run) as run:
        recorded, saved = ranks.first(lambda: _recorded(run))
        if not recorded:
            return _begin_again(run, keys, watcher, ranks)
        asked, old = Recipe.recorded(recorded), ranks.first(lambda: in_force(run))
        progress = ranks.first(lambda: _progress(run, old, saved))
        new = ranks.first(lambda: changed_recipe(asked, keys, progress))
        if ranks.broadcast(run.info.get("status")) == "finished" and new == old:
            return run
        plan = plan_together(new, ranks, weights=saved is None)
        ranks.first(lambda: _refuse_other_data(run, plan))
        told = changes(old, plan.recipe, progress)
        place = _place(plan, ranks)
        reasons = ranks.first(
            lambda: [*inexact(done_by(run.info, saved.step), place), *told.reasons] if saved is not None else []
        )
        ranks.first(lambda: _rewrite(run, plan, saved, told))
        segment = {**place, "exact": not reasons, **({"reasons": reasons} if reasons else {}),
                   **({"changes": told.changed} if told.changed else {})}  # fmt: skip
        again = ranks.first(lambda: [] if saved is not None else _begins_again(run))
        watcher.told([*again, *(saved.said if saved is not None else ()), *_in_words(told, reasons)])
        return Session(run, plan, watcher, ranks).go(None if saved is None else saved.state, segment)


@contextlib.contextmanager
def _alone_in(ranks: Ranks, find: Callable[[], Run]) -> Iterator[Run]:
    """The run that the first process finds and holds; the others look on."""
    with contextlib.ExitStack() as stack:

        def take() -> Run:
            run = find()
            stack.enter_context(held_by_us(run))
            return run

        run = ranks.first(take)
        yield run if ranks.is_first else Onlooker(run.folder)


def _recorded(run: Run) -> tuple[dict[str, Any], Saved | None]:
    """The run's recipe and last state; nothing where it was ended before it had a recipe."""
    if not run.recipe:
        if states := saved_steps(run):
            raise UsageError(
                f"{run.folder / 'recipe.yaml'} is gone, by which the state after step {states[0]} was made",
                hint="put it back from a copy; its keys are those of asked.yaml with all that was chosen for them",
            )
        return {}, None
    saved = load_state(run)
    if saved is not None:
        refuse_edited_recipe(run, saved)
    return run.recipe, saved


def _rewrite(run: Run, plan: Plan, saved: Saved | None, told: Changes) -> None:
    """Bring the run folder to what the run goes on with."""
    tidy(run, saved)
    if saved is None:
        _introduce(run, plan)
    elif told.changed or run.recipe != plan.recipe.as_dict():
        run.write_recipe(plan.recipe.as_dict())
        known = run.findings
        foreseen = [finding.as_dict() for finding in plan.foresight]
        run.write_findings([*known, *(finding for finding in foreseen if finding not in known)])
        run.update(
            data={"root": _root(plan)}, protocol=list(plan.recipe.validation.judged_by), groups=_groups(plan),
        )  # fmt: skip


def _begin_again(run: Run, keys: Mapping[str, Any], watcher: Watcher, ranks: Ranks) -> Run:
    """Train a run that was killed before it had written its recipe."""
    asked = ranks.broadcast(run.asked)
    if not asked:
        raise UsageError(
            f"run {run.name} was ended before it had written what it is", hint="start it again under another name"
        )
    plan = plan_together(ask({**asked, **keys}), ranks)
    ranks.first(lambda: _introduce(run, plan))
    return Session(run, plan, watcher, ranks).go(segment=_place(plan, ranks))


def _introduce(run: Run, plan: Plan) -> None:
    """Write into the run folder what is known before the first step."""
    run.write_recipe(plan.recipe.as_dict())
    run.write_findings([finding.as_dict() for finding in (*plan.opened.findings, *plan.foresight)])
    val = plan.opened.val
    write_truth(run, val.images, val.annotations, plan.opened.classes)
    start = {"source": plan.report.source, "notes": plan.report.notes, "tensors": plan.report.rows()}
    write_bytes(run.weights_dir / "start.json", as_json(start).encode())
    run.update(**_facts(plan))


def _progress(run: Run, recipe: Recipe, saved: Saved | None) -> Progress:
    images = int(run.info.get("data", {}).get("train", {}).get("images", 0))
    best = str(run.weights_dir / "best.safetensors")
    factor = 1.0 if saved is None else float(saved.state["loop"]["lr_factor"])
    return Progress(0 if saved is None else saved.step, steps_per_epoch(images, recipe.batch), best, factor)


def _place(plan: Plan, ranks: Ranks) -> dict[str, Any]:
    """Where this process runs and by which recipe, as a segment keeps it."""
    machine = facts(environment(plan.device, str(plan.recipe.precision), {}), ranks.count)
    return {**machine, "recipe": digest(plan.recipe.as_dict())}


def _in_words(told: Changes, reasons: Sequence[str]) -> list[str]:
    """What the user should know of the changes, before the run goes on."""
    lines = [f"changed: {key} from {_spoken(was)} to {_spoken(now)}" for key, (was, now) in told.changed.items()]
    lines += told.notes
    if reasons:
        lines.append(f"from here on not bit for bit the uninterrupted run: {'; '.join(reasons)}")
    return lines


def _begins_again(run: Run) -> list[str]:
    """That a run without a state is done again from its start, where steps of it are recorded."""
    done = len(run.steps)
    return (
        [f"no saved state is left in {run.state_dir}: the run begins again, {done} step{'s' * (done != 1)} are lost"]
        if done
        else []
    )


def _spoken(value: Any) -> str:
    return "automatic" if value is None else str(value)


def _refuse_other_data(run: Run, plan: Plan) -> None:
    """DataError where the images or boxes are not those the run began with: going on would be another run."""
    began = run.info.get("data", {})
    problems = [
        f"{name}: {_change(began[name], part)}"
        for name, part in (("train", plan.opened.train), ("val", plan.opened.val))
        if name in began and began[name]["fingerprint"] != part.fingerprint()
    ]
    if problems:
        raise DataError(
            f"the data of run {run.name} has changed since it began", problems=problems,
            hint="put the data back as it was, or start a new run",
        )  # fmt: skip


def _change(began: Mapping[str, Any], part: Dataset) -> str:
    """What is known to differ between a set as run.json recorded it and as it is now."""
    before = [f"{row['ratio']:g} of {row['data']}" for row in began.get("parts", ()) if row["ratio"] is not None]
    now = [f"{row['ratio']:g} of {row['data']}" for row in shares(part) if row["ratio"] is not None]
    if before != now:
        return f"mixed by {', '.join(before) or 'no ratio'} when the run began, by {', '.join(now) or 'no ratio'} now"
    if (began["images"], began["boxes"]) == (len(part), part.boxes):
        return f"as many images ({len(part)}) and boxes ({part.boxes}) as before, but not the same ones"
    return f"{began['images']} images with {began['boxes']} boxes when the run began, {len(part)} with {part.boxes} now"


def _facts(plan: Plan) -> dict[str, Any]:
    """What run.json says of code, data, environment and model."""
    opened, recipe = plan.opened, plan.recipe
    sets = {
        name: {
            "images": len(part),
            "boxes": part.boxes,
            "fingerprint": part.fingerprint(),
            "split": opened.split_made or part.split,
            **({"parts": shares(part)} if part.parts else {}),
        }
        for name, part in (("train", opened.train), ("val", opened.val))
    }
    return {
        "data": {"root": _root(plan), "name": Path(recipe.data).name, "format": opened.format,
                 "described": opened.described, "classes": list(opened.classes), **sets},
        "environment": environment(plan.device, str(recipe.precision), plan.measured),
        "groups": _groups(plan),
        "seed": recipe.seed, "protocol": list(recipe.validation.judged_by),
        "model": {"name": recipe.model, **({"cfg": plan.cfg} if plan.cfg else {}),
                  "parameters": sum(p.numel() for p in plan.detector.parameters()),
                  "weights": plan.report.as_dict(),
                  "levels": [level.as_dict() for level in levels_of(plan.detector)]},
    }  # fmt: skip


def _root(plan: Plan) -> str:
    """The training set's folder, whole, for the run may be looked at from another."""
    return str(Path(plan.opened.train.root).absolute())


def _groups(plan: Plan) -> list[dict[str, Any]]:
    """The stages with their parameter groups; `steps` are those after the first number, up to the second."""
    return [
        {"stage": leg.name, "epochs": leg.epochs, "steps": [leg.first_step, leg.first_step + leg.steps],
         "optimiser": leg.optimiser.name, "schedule": leg.schedule.name, "lr": leg.optimiser.lr,
         "groups": [row.as_dict() for row in rows]}
        for leg, rows in plan.groups
    ]  # fmt: skip
