"""One process's stretch of a run: epochs and stages, judging, saving, stopping, going back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import torch

from onestage.errors import DivergedError, LostRankError, StorageError
from onestage.evaluation import Evaluation
from onestage.experiments.run import Run, Status
from onestage.models.detector import Detector
from onestage.models.weights import as_safetensors, load_fitting
from onestage.models.weights_files import read_state
from onestage.training.devices.machine import engine
from onestage.training.devices.ranks import Ranks, tensors_of
from onestage.training.feed import Feed
from onestage.training.judging.judge import Judge
from onestage.training.lookout import Lookout
from onestage.training.loop.averaging import Averaged
from onestage.training.loop.loop import Loop, RollBack
from onestage.training.loop.step_record import StepRecord
from onestage.training.plan import Plan
from onestage.training.recipe.stages import Leg
from onestage.training.recorder import Recorder, spikes_for
from onestage.training.saving.interrupts import Stop, stopping
from onestage.training.saving.saver import Saver
from onestage.training.saving.state import finish_best, load_state, told_loss, try_to_say
from onestage.training.train_log import TrainLog
from onestage.training.watcher import Watcher

# Signals so many seconds after the first are the launcher's, who passes on what the terminal has sent already.
PATIENCE = 10.0


class Stopped(Exception):  # noqa: N818  # no error: somebody's wish
    """The run was asked to stop, and has saved its state."""


class Session:
    """Trains the planned run from its start, or from a saved state, to its end; `go` gives the run.

    At whatever moment the process dies, the run folder holds a state from which the same run goes on: what the folder
    shows beyond that state is done again, to the same bits.
    """

    def __init__(self, run: Run, plan: Plan, watcher: Watcher, ranks: Ranks | None = None) -> None:
        self.run, self.plan, self.watcher, self.ranks = run, plan, watcher, ranks or Ranks()
        recipe = plan.recipe
        cv2.setNumThreads(1)
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
        self.ranks.share(tensors_of(plan.detector))
        self.averaged = Averaged(plan.detector, recipe.ema) if recipe.ema else None
        self.lookout, self.log = Lookout(run, plan, watcher.found), TrainLog(run, plan, watcher.logged)
        self.feed = Feed(plan, self.ranks)
        files = {image.id: image.path for image in plan.opened.train.images}
        self.recorder = Recorder(
            recipe.guard, folder=run.folder / "recorder" if self.ranks.is_first else None, run=run.name,
            file_of=files.get, classes=plan.opened.classes, weights=recipe.loss, precision=str(recipe.precision),
            spikes=spikes_for(recipe, plan.legs[0]), mixed=recipe.augmentation.policy == "mosaic", samples=True,
            rank=self.ranks.rank, size_of=self.feed.sizes.at,
        )  # fmt: skip
        self.legs = plan.legs
        self.loop = Loop(
            engine(plan.device, str(recipe.precision)), plan.detector, weights=recipe.loss,
            accumulate=recipe.accumulate, averaged=self.averaged, observer=self.recorder, ranks=self.ranks,
            norms=recipe.norms,
        )  # fmt: skip
        self.judge = Judge(plan, self._judging, self.ranks, self.recorder.judged)
        self.seconds = {"data": 0.0, "train": 0.0, "eval": 0.0, "total": 0.0}
        self.best: dict[str, Any] | None = None
        self.judged_at = 0  # the step of the last judgement
        self.final = False  # trained to the end: the detector holds the best weights, no longer the last
        self.stop = Stop()
        self.since_judged: list[Mapping[str, Any]] = []  # rows of steps.jsonl
        self.saver = Saver(run, recipe, self.ranks)

    def go(self, state: Mapping[str, Any] | None = None, segment: Mapping[str, Any] | None = None) -> Run:
        """Train to the end and judge; raises what stopped it, with the run's status saying so.

        `segment` are facts that run.json keeps of this stretch. A signal stops the run after the step it is in.
        """
        if state is None:
            self._enter(self.legs[0])
            if not self.ranks.is_first:
                torch.manual_seed(self.plan.recipe.seed + self.ranks.rank)
        else:
            self._take_up(state)
        self.start = time.perf_counter() - self.seconds["total"]
        self.saver.start()
        self.run.begin(self.loop.step, **(segment or {}))
        self.watcher.planned(self.run, self.plan, self.loop.step)
        with stopping(self.watcher.stopping, 0.0 if self.ranks.alone else PATIENCE) as self.stop:
            evaluation = self._to_the_end(state is None)
        if evaluation is not None:
            self.watcher.finished(self.run, evaluation)
        return self.run

    def _to_the_end(self, fresh: bool) -> Evaluation | None:
        try:
            if fresh:
                self._save_state()
            self._train()
            return self._final()
        except Stopped:
            self._end("stopped")
            raise KeyboardInterrupt from None
        except KeyboardInterrupt:  # at once: what is saved stands
            self._end("stopped")
            raise
        except DivergedError as error:
            self._hear()
            self._end("diverged", error.message)
            raise
        except LostRankError as error:
            self.stop.deaf = True  # the launcher is about to end this process too: first it must say why
            try_to_say(self.run, error)
            raise
        except StorageError as error:
            try_to_say(self.run, error)
            raise told_loss(error, self.run, self.loop.step) from error
        except BaseException as error:
            try_to_say(self.run, error)
            raise
        finally:
            self.feed.close()
            self.judge.close()

    def _take_up(self, state: Mapping[str, Any], counts: bool = True) -> None:
        """Go on from a saved state; after a rollback the recorder keeps its `counts`."""
        inner = state["loop"]
        self.loop.restore(inner, self.legs[inner["leg"]])
        self.lookout.enter(self.plan.detector, self.loop.frozen)
        self.lookout.restore(state["lookout"])
        self.recorder.restore(state["recorder"], counts)
        self.best, self.judged_at, self.seconds = state["best"], int(state["judged"]), dict(state["seconds"])
        self.since_judged = [row for row in self.run.steps if self.judged_at < row["step"] <= self.loop.step]
        if self.best is not None and self.ranks.is_first:
            finish_best(self.run, self.best)  # the process may have died between the state and the weights
            self.run.update(best=self.best)

    def _train(self) -> None:
        while True:
            try:
                return self._epochs()
            except RollBack:
                factor = self.loop.lr_factor * self.plan.recipe.guard.lr_factor
                saved = self.ranks.first(lambda: load_state(self.run))
                assert saved is not None  # noqa: S101  # the first is saved before the first step
                self._take_up(saved.state, counts=False)
                self.loop.lr_factor = factor
                self._save_state()  # killed now, the run must not go back to the old rate, nor forget that it went back

    def _epochs(self) -> None:
        recipe, per_epoch = self.plan.recipe, self.plan.steps_per_epoch
        epochs, every = int(recipe.epochs or 0), int(recipe.validation.every or 1)
        first, done = divmod(self.loop.step, per_epoch)
        ended = self.loop.step == self.plan.steps
        due = ended or (first and not done and first % every == 0)
        if due and self.judged_at < self.loop.step:
            self._judge(first - 1 + bool(done))  # stopped between the epoch's last step and its judgement
        for epoch in range(first, first if ended else epochs):
            for record in self.epoch(epoch, done):
                self._account(record)
                self._between()
            done = 0
            if epoch + 1 == epochs or (epoch + 1) % every == 0:
                self._judge(epoch)
                self._between()

    def epoch(self, epoch: int, done: int = 0) -> Iterator[StepRecord]:
        """The steps of an epoch of which `done` are done already, in its leg, with its augmentation and sizes."""
        leg = next(leg for leg in self.legs if epoch < leg.first_epoch + leg.epochs)
        if leg is not self.loop.leg:
            self._enter(leg)
        return self.loop.epoch(epoch, self.feed.epoch(epoch, done), self.feed.images)

    def _between(self) -> None:
        """Between steps, with all files up to date: hear the recorders, save when due, stop where that is wished.

        What any process wishes is done by all; when the state is due the first decides.
        """
        news, stop, due = bool(self.recorder.unread), self.stop.asked, self.saver.is_due()
        if not self.ranks.alone:
            news, stop, due = (bool(said) for said in self.ranks.sums([news, stop, due]))
        if news:
            self._hear()
        if stop or due:
            self._save_state()
        if stop:
            raise Stopped

    def _hear(self) -> None:
        """Take in what the recorders of all processes found; the first writes their reports."""
        own, reports = self.recorder.take_findings(), self.recorder.incidents
        for rank, (findings, incidents) in enumerate(self.ranks.gather_first((own, reports[-1:] if own else []))):
            for finding in findings:
                self.lookout.add(finding)
            for incident in incidents if rank else ():
                incident.write(self.run.folder / "recorder")

    def _enter(self, leg: Leg) -> None:
        self.loop.enter(leg)
        self.lookout.enter(self.plan.detector, self.loop.frozen)

    def complete(self, record: StepRecord) -> None:
        """Add to the record what the loop does not know: stage and size where they change, what is looked at seldom."""
        if len(self.legs) > 1:
            record.extra["stage"] = self.loop.leg.index
        if self.feed.sizes.changing:
            record.extra["size"] = list(self.plan.detector.size)
        if self.ranks.is_first:
            self.lookout.complete(record)

    def _account(self, record: StepRecord) -> None:
        self.seconds["data"] += record.seconds["data"]
        self.seconds["train"] += record.seconds["step"]
        self.complete(record)
        row = record.as_row(self._total())
        self.since_judged.append(row)
        self.run.append_step(row)
        if self.ranks.is_first:
            self.lookout.step(record, row)
            self.log.stepped(row)
        with self.stop.heard():
            self.watcher.stepped(record, self.plan)

    def _judging(self, done: int, total: int) -> None:
        """Tell how far judging is; a wish to stop need not wait for it: the state is saved, judging comes again."""
        with self.stop.heard():
            self.watcher.judging(done, total)
        if self.stop.asked and self.ranks.alone:  # others would wait in vain: after the judgement all stop together
            if not self.final:  # else the weights are the best, no longer the last, whose state is saved
                self._save_state()
            raise Stopped

    def _judge(self, epoch: int) -> None:
        """Judge the averaged weights, add a row to results.csv, keep the weights when they are the best so far.

        The state is saved before best.safetensors is replaced: it says whether these weights are the best.
        """
        begin = time.perf_counter()
        self.ranks.share(buffer for buffer in self._judged().buffers())  # norms of their own: the first's are judged
        judged, confusion = self.judge.row(self._judged(), self.since_judged)
        self.seconds["eval"] += time.perf_counter() - begin
        row = {"epoch": epoch + 1, "step": self.loop.step, "time": round(self._total(), 2), **judged}
        self.since_judged, self.judged_at = [], self.loop.step
        recipe, metric = self.plan.recipe, self.plan.recipe.validation.metric
        value = row[f"metrics/{metric}"]
        best = self.best is None or value > self.best["value"] or math.isnan(self.best["value"])
        if best:
            self.best = {"epoch": epoch + 1, "step": self.loop.step, "metric": metric, "value": value}
        if self.ranks.is_first:
            weights = as_safetensors(
                self._judged(), self.plan.opened.classes, recipe.options, fit=recipe.fit_judged,
                step=self.loop.step, scale=recipe.validation.scale,
            )  # fmt: skip
            self.run.write_file("weights/last.safetensors", weights)
            self.run.append_result(row)
            self.lookout.evaluated(row, confusion)
        self._save_state()
        if self.ranks.is_first:
            finish_best(self.run, self.best)
            self.run.update(best=self.best, seconds=self.seconds)
            self.watcher.evaluated(row, best)

    def _judged(self) -> Detector:
        return self.plan.detector if self.averaged is None else self.averaged.detector

    def _final(self) -> Evaluation | None:
        """Judge the best weights by every protocol; the first process alone has the evaluation."""
        begin = time.perf_counter()
        self.final = True
        best = self.run.weights_dir / "best.safetensors"
        self.ranks.first(lambda: str(load_fitting(self._judged(), read_state(best), best.name)))
        self.ranks.share(tensors_of(self._judged()))
        evaluation = self.judge.final(self._judged(), self.run)
        self.seconds["eval"] += time.perf_counter() - begin
        self._end("finished")
        return evaluation

    def _end(self, status: Status, error: str | None = None) -> None:
        self.run.update(seconds={**self.seconds, "total": self._total()}, **self.lookout.sums())
        self.run.finish(status, error)

    def _save_state(self) -> None:
        self.seconds["total"] = self._total()
        state = {
            "loop": self.loop.state(), "best": self.best, "judged": self.judged_at, "seconds": self.seconds,
            "lookout": self.lookout.state(), "recorder": self.recorder.state(),
        }  # fmt: skip
        self.saver.save(self.loop.step, state)

    def _total(self) -> float:
        return time.perf_counter() - self.start
