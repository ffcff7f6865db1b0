"""Recipe in, finished run out."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
from lightning_fabric import Fabric

from onestage.boxes.selection import PRESETS, Selection
from onestage.data.augment import Policy, augmentation, calm, with_fit
from onestage.data.detections.coco_json import coco_results
from onestage.data.loader import Loader
from onestage.errors import DataError, DivergedError, StorageError
from onestage.evaluation import Evaluation, evaluate
from onestage.experiments.run import Run
from onestage.experiments.truth import write_truth
from onestage.models.inference import TorchPredictor
from onestage.models.weights import as_safetensors, load_fitting, read_state
from onestage.training.loop import Averaged, Loop, StepRecord
from onestage.training.machine import environment
from onestage.training.optimiser import build_optimiser, freeze
from onestage.training.plan import Plan, ask, make_plan
from onestage.training.recipe import Recipe
from onestage.training.state import load_state, save_state
from onestage.training.validate import Measured, detect_dataset

# After this many seconds an epoch's end saves the state; a run can be taken up from there.
STATE_SECONDS = 20.0


class Watcher:
    """Who is told what happens: the terminal, a notebook, a test. Here every method does nothing; override some."""

    def planned(self, run: Run, plan: Plan, resumed_at: int) -> None:
        """The run is about to start."""

    def stepped(self, record: StepRecord, plan: Plan) -> None:
        """A step was done."""

    def evaluated(self, row: Mapping[str, Any], best: bool) -> None:
        """The model was judged; `row` is that of results.csv."""

    def judging(self, done: int, total: int) -> None:
        """So many of the validation images are done."""

    def finished(self, run: Run, evaluation: Evaluation) -> None:
        """The run is over and judged."""


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
    run.write_findings([finding.as_dict() for finding in plan.opened.findings])
    val = plan.opened.val
    write_truth(run, val.images, val.annotations, plan.opened.classes)
    run.update(**_facts(plan))
    return _Session(run, plan, watcher or Watcher()).go()


def resume(run: Run, *, watcher: Watcher | None = None) -> Run:
    """Go on with a run that was stopped, from its last saved state to the end its recipe names."""
    state = load_state(run)
    recipe = Recipe.recorded(run.recipe)
    plan = make_plan(recipe, weights=False)
    _refuse_other_data(run, plan)
    return _Session(run, plan, watcher or Watcher()).go(state)


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
        "seed": recipe.seed, "protocol": list(recipe.validation.protocols),
        "model": {"name": recipe.model, "parameters": sum(p.numel() for p in plan.detector.parameters()),
                  "weights": plan.report.as_dict()},
    }  # fmt: skip


class _Session:
    """One process's stretch of a run."""

    def __init__(self, run: Run, plan: Plan, watcher: Watcher) -> None:
        self.run, self.plan, self.watcher = run, plan, watcher
        recipe = plan.recipe
        cv2.setNumThreads(1)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        precision = "bf16-mixed" if recipe.precision == "bf16" else "32-true"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            engine = Fabric(accelerator=plan.device.partition(":")[0], devices=1, precision=precision)  # type: ignore[arg-type]
        frozen = freeze(plan.detector, recipe.freeze or ())
        self.averaged = Averaged(plan.detector, recipe.ema) if recipe.ema else None
        self.loop = Loop(
            engine, plan.detector, build_optimiser(plan.detector, recipe.optimiser), recipe.schedule, plan.steps,
            frozen=frozen, weights=recipe.loss, clip=recipe.clip, averaged=self.averaged,
        )  # fmt: skip
        self.policy: Policy = with_fit(
            augmentation(recipe.augmentation.policy, **recipe.augmentation.options), recipe.fit
        )
        size = plan.detector.size
        self.train = Loader(
            plan.opened.train, size, self.policy, batch=recipe.batch, seed=recipe.seed,
            drop_last=len(plan.opened.train) >= recipe.batch, workers=recipe.workers, cache=recipe.cache,
        )  # fmt: skip
        self.val = Loader(plan.opened.val, size, "none", batch=recipe.batch, shuffle=False, fit=recipe.fit)
        self.seconds = {"data": 0.0, "train": 0.0, "eval": 0.0, "total": 0.0}
        self.best: dict[str, Any] | None = None
        self.since_judged: list[Mapping[str, Any]] = []  # rows of steps.jsonl

    def go(self, state: dict[str, Any] | None = None) -> Run:
        epoch, done = 0, 0
        if state is not None:
            self.loop.restore(state["loop"])
            self.best, self.seconds = state["best"], dict(state["seconds"])
            epoch, done = divmod(self.loop.step, self.plan.steps_per_epoch)
            judged = max((row["step"] for row in self.run.results if row["step"] <= self.loop.step), default=0)
            self.since_judged = [row for row in self.run.steps if judged < row["step"] <= self.loop.step]
        self.start = time.perf_counter() - self.seconds["total"]
        self.saved = time.perf_counter()
        self.run.begin(self.loop.step)
        self.watcher.planned(self.run, self.plan, self.loop.step)
        try:
            self._epochs(epoch, done)
            evaluation = self._final()
        except KeyboardInterrupt:
            self._save_state()
            self.run.finish("stopped")
            raise
        except DivergedError as error:
            self.run.finish("diverged", error.message)
            raise
        except BaseException as error:
            _try_to_say(self.run, error)
            raise
        finally:
            self.train.close()
            self.val.close()
        self.watcher.finished(self.run, evaluation)
        return self.run

    def _epochs(self, first: int, done: int) -> None:
        recipe = self.plan.recipe
        epochs, every = int(recipe.epochs or 0), int(recipe.validation.every or 1)
        due = first and not done and (first == epochs or first % every == 0)
        if due and self.loop.step not in {row["step"] for row in self.run.results}:
            self._judge(first - 1)  # stopped between the epoch's last step and its judgement
        calm_from = round(epochs * (1 - recipe.augmentation.rest))
        for epoch in range(first, epochs):
            policy = calm(self.policy) if epoch >= calm_from and recipe.augmentation.rest else self.policy
            batches = self.train.epoch(epoch, start=done, policy=policy)
            done = 0
            for record in self.loop.epoch(epoch, batches):
                self._account(record)
            last = epoch + 1 == epochs
            if last or (epoch + 1) % every == 0:
                self._judge(epoch)
            if last or time.perf_counter() - self.saved > STATE_SECONDS:
                self._save_state()

    def _account(self, record: StepRecord) -> None:
        self.seconds["data"] += record.seconds["data"]
        self.seconds["train"] += record.seconds["step"]
        row = record.as_row(self._total())
        self.since_judged.append(row)
        self.run.append_step(row)
        self.watcher.stepped(record, self.plan)

    def _judge(self, epoch: int) -> None:
        """Judge the averaged weights, add a row to results.csv, keep the weights when they are the best so far."""
        recipe = self.plan.recipe
        begin = time.perf_counter()
        answers = Measured(TorchPredictor(self._judged(), str(recipe.precision)))
        evaluation = self._evaluate(answers, intervals=False, protocols=("voc10", "coco"))
        self.seconds["eval"] += time.perf_counter() - begin
        metrics = evaluation.metrics
        row: dict[str, Any] = {"epoch": epoch + 1, "step": self.loop.step, "time": round(self._total(), 2)}
        steps = self.since_judged
        for name in steps[-1]["weighted"] if steps else ():
            row[f"train/{name}"] = sum(step["weighted"][name] for step in steps) / len(steps)
        row |= {f"val/{name}": value for name, value in answers.losses(recipe.loss).items()}
        row["metrics/mAP50"] = metrics.value("mAP50", "voc10")
        row["metrics/mAP50-95"] = metrics.value("mAP50-95", "coco")
        row["metrics/precision"] = metrics.value("precision", "voc10")
        row["metrics/recall"] = metrics.value("recall", "voc10")
        row |= {f"lr/{name}": rate for name, rate in (steps[-1]["lr"].items() if steps else ())}
        self.since_judged = []
        value = row[f"metrics/{recipe.validation.metric}"]
        best = self.best is None or value > self.best["value"]
        weights = as_safetensors(self._judged(), self.plan.opened.classes, recipe.options, recipe.fit)
        self.run.write_file("weights/last.safetensors", weights)
        if best:
            self.best = {"epoch": epoch + 1, "step": self.loop.step, "metric": recipe.validation.metric, "value": value}
            self.run.write_file("weights/best.safetensors", weights)
        self.run.append_result(row)
        self.run.update(best=self.best, seconds=self.seconds)
        self.watcher.evaluated(row, best)

    def _judged(self) -> Any:
        return self.plan.detector if self.averaged is None else self.averaged.detector

    def _evaluate(
        self, answers: Measured, intervals: bool, protocols: tuple[str, ...], keep: bool = False
    ) -> Evaluation:
        recipe, val = self.plan.recipe, self.plan.opened.val
        selection = Selection(recipe.validation.score, recipe.validation.iou, PRESETS["evaluate"].per_class, 300)
        found = detect_dataset(answers, val, self.val, selection, lambda n: self.watcher.judging(n, len(val)))
        if keep:
            self.run.write_predictions(coco_results(found))
        return evaluate(
            val.truths, found, self.plan.opened.classes, protocols, intervals, sizes=val.sizes,
            score_floor=selection.score,
        )  # fmt: skip

    def _final(self) -> Evaluation:
        """Judge the best weights by every protocol, with intervals; keep predictions and metrics."""
        begin = time.perf_counter()
        best = self.run.weights_dir / "best.safetensors"
        load_fitting(self._judged(), read_state(best), best.name)
        protocols = self.plan.recipe.validation.protocols
        answers = Measured(TorchPredictor(self._judged(), str(self.plan.recipe.precision)))
        evaluation = self._evaluate(answers, intervals=True, protocols=protocols, keep=True)
        selection = self.plan.recipe.validation
        self.run.write_metrics({**evaluation.as_dict(), "iou_nms": selection.iou})
        self.seconds["eval"] += time.perf_counter() - begin
        self.seconds["total"] = self._total()
        self.run.update(seconds=self.seconds)
        self.run.finish("finished")
        return evaluation

    def _save_state(self) -> None:
        self.seconds["total"] = self._total()
        save_state(self.run, {"loop": self.loop.state(), "best": self.best, "seconds": self.seconds})
        self.saved = time.perf_counter()

    def _total(self) -> float:
        return time.perf_counter() - self.start


def _try_to_say(run: Run, error: BaseException) -> None:
    """Mark the run as failed where the disk still takes it; the first error is what the user must see."""
    try:
        run.finish("failed", getattr(error, "message", None) or f"{type(error).__name__}: {error}"[:300])
    except StorageError:
        error.add_note("run.json could not be updated either")
