"""Runs in Python: going on with one, and doing a step of it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import onestage.training.fit as training
import onestage.training.replay as replaying
from onestage.experiments.run import Run
from onestage.report.batch_sheet import SheetImage
from onestage.report.replayed import write_replay
from onestage.training.first_batch import assigned_of
from onestage.training.recipe.keys import flat
from onestage.training.replay import Progress, Replayed
from onestage.training.watcher import Watcher

__all__ = ["Replayed", "pictures", "replay", "replay_folder", "resume", "write_page"]


def resume(run: Run | str | Path, *, watcher: Watcher | None = None, **keys: Any) -> Run:
    """Go on with a run, by itself, its folder or its name, from its last saved state to the end its recipe names.

    `keys` change its recipe from here on, with `__` for a dot or as mappings: `optimiser__lr=1e-4`, `epochs=60`. A
    finished run without changes is left as it is. Its weights are then `Detector.load(run)`'s. Raises UsageError for
    an unknown run and one that another process trains, RecipeError for changes that cannot be, DataError for data
    that is not what it was, ModelError for states that cannot be read; nothing is changed then.
    """
    return training.resume(_opened(run), dotted(keys), watcher=watcher)


def replay(
    run: Run | str | Path, step: int, *, page: bool | str | Path = False, progress: Progress | None = None
) -> Replayed:
    """Do step `step` (from 1) of a run again, bit for bit, and take it apart: what each image and prior did in it.

    `.identical` says whether every recorded value came again, `.differences` which did not, `.contributions` has the
    images and priors with their losses and gradients, `.batches` the images as the network saw them. `page` True
    writes the page, pictures and replay.json to the run's recorder/replay-000123/, a path to that folder; without it
    nothing is written. `progress(done, total)` is told of the steps on the way. Raises UsageError where the run never
    did that step.
    """
    opened = _opened(run)
    done = replaying.replay(opened, step, progress)
    if page:
        write_page(opened, done, None if page is True else Path(page))
    return done


def replay_folder(run: Run, step: int) -> Path:
    """Where the page of a replayed step lies."""
    return run.folder / "recorder" / f"replay-{step:06d}"


def write_page(run: Run, done: Replayed, folder: Path | None = None) -> Path:
    """Write a replayed step's page with its pictures and numbers, by default into the run's folder; the page's path."""
    folder = folder or replay_folder(run, done.step)
    return write_replay(folder, done.as_dict(), pictures(done), done.classes, run.name)


def pictures(done: Replayed) -> list[SheetImage]:
    """The batch's images as they are drawn: augmented, with truths and the priors that answer for them."""
    found = []
    for batch in done.batches:
        assigned = assigned_of(done.detector, batch)
        pixels = np.clip(batch.images, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        for i, image_id in enumerate(batch.ids):
            found.append(SheetImage(
                np.ascontiguousarray(pixels[i]), done.files[image_id].name, batch.annotations[i],
                None if assigned is None else assigned[i],
            ))  # fmt: skip
    return found


def dotted(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments as a recipe's flat keys: `__` is a dot, mappings are groups."""
    return flat({key.replace("__", "."): value for key, value in keys.items()})


def _opened(run: Run | str | Path) -> Run:
    return run if isinstance(run, Run) else Run.open(run)
