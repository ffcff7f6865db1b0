"""Judges a run's weights as it goes: after epochs, and at its end by every protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onestage.data.detections.coco_json import coco_results
from onestage.data.loader import Loader
from onestage.errors import DivergedError
from onestage.evaluation import Evaluation, evaluate, lay_out
from onestage.evaluation.confusion import confusion
from onestage.evaluation.steering import BENCHMARKS, steering_score
from onestage.experiments.run import Run
from onestage.models.detector import Detector
from onestage.models.inference import TorchPredictor, size_kept
from onestage.records import Batch, Detections, ImageId
from onestage.training.devices.ranks import Ranks
from onestage.training.judging.detect import Measured, detect_dataset
from onestage.training.plan import Plan

Found = Mapping[ImageId, Detections]
Explain = Callable[[Detector, Batch, Callable[[ImageId], Any]], DivergedError]
Taken = dict[str, dict[str, int]]
# Detections below this score do not tell what a class is taken for.
SURE = 0.3


class Judge:
    """Detects on the validation images and judges what was found; `progress(done, total)` is told how far it is.

    Each process detects on its own images; the first judges them all, each once.
    """

    def __init__(
        self, plan: Plan, progress: Callable[[int, int], None], ranks: Ranks | None = None,
        explain: Explain | None = None,
    ) -> None:  # fmt: skip
        self.plan, self.progress, self.ranks, self.explain = plan, progress, ranks or Ranks(), explain
        recipe, size = plan.recipe, plan.detector.size
        self.size = size
        self.loader = Loader(
            plan.opened.val, size, "none", batch=recipe.batch, shuffle=False, fit=recipe.fit_judged,
            scale=recipe.validation.scale, rank=self.ranks.rank, ranks=self.ranks.count,
        )  # fmt: skip

    def close(self) -> None:
        """End what the loader keeps running."""
        self.loader.close()

    def row(self, detector: Detector, steps: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], Taken]:
        """The columns of results.csv that judging gives: mean losses of the `steps` since the last row, and metrics.

        Beside those of every run they hold the recipe's metric, and all scores of a benchmark's own protocol
        (metrics/widerface/APhard) where the recipe asks for it.

        Steps that the guard left out have no part in the means.

        And which class was taken for which, {class of the truth: {class said: how often}}, where there are several.
        """
        answers = self._answers(detector)
        found = self._detect(answers)
        return self.ranks.first(lambda: self._row(answers, found, steps))

    def _row(self, answers: Measured, found: Found, steps: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], Taken]:
        metric = self.plan.recipe.validation.metric
        steered, score = steering_score(metric)
        own = [name for name in self.plan.recipe.validation.judged_by if name in BENCHMARKS]
        metrics = self._evaluate(found, False, tuple(dict.fromkeys(("voc10", "coco", *own, steered)))).metrics
        row: dict[str, Any] = {}
        steps = [step for step in steps if not step.get("skipped")]
        for kind, column in (("weighted", "train"), ("raw", "train_raw")):
            for name in steps[-1][kind] if steps else ():
                row[f"{column}/{name}"] = sum(step[kind][name] for step in steps) / len(steps)
        weights = self.plan.recipe.loss
        row |= {f"val/{name}": value for name, value in answers.losses(weights).items()}
        row |= {f"val_raw/{name}": value for name, value in answers.losses({}).items()}
        row["metrics/mAP50"] = metrics.value("mAP50", "voc10")
        row["metrics/mAP50-95"] = metrics.value("mAP50-95", "coco")
        row["metrics/precision"] = metrics.value("precision", "voc10")
        row["metrics/recall"] = metrics.value("recall", "voc10")
        for one in metrics:
            if one.protocol in own and one.class_name is None:
                row[f"metrics/{one.protocol}/{one.name}"] = one.value
        row[f"metrics/{metric}"] = metrics.value(score, steered)
        row |= {f"lr/{name}": rate for name, rate in (steps[-1]["lr"].items() if steps else ())}
        return row, self._taken(found)

    def final(self, detector: Detector, run: Run) -> Evaluation | None:
        """Judge by every protocol of the recipe, with intervals; predictions and metrics are kept in the run.

        None in all processes but the first.
        """
        limits = self.plan.recipe.validation
        found = self._detect(self._answers(detector))
        if not self.ranks.is_first:
            return None
        run.write_predictions(coco_results(found))
        evaluation = self._evaluate(found, True, limits.judged_by)
        run.write_metrics({**evaluation.as_dict(), "iou_nms": limits.iou})
        return evaluation

    def _answers(self, detector: Detector) -> Measured:
        if detector.size != self.size:
            detector.resized(self.size)
        return Measured(TorchPredictor(detector, str(self.plan.recipe.precision)))

    def _detect(self, answers: Measured) -> Found:
        """The detections on every image, in the dataset's order, and all losses in `answers`; the first's alone."""
        part = self.ranks.together(lambda: self._detect_here(answers))
        if self.ranks.alone:
            return part
        shares = self.ranks.gather_first((part, answers.sums, answers.normaliser))
        answers.add(*((sums, normaliser) for _, sums, normaliser in shares[1:]))
        return gathered([found for found, _, _ in shares], [image.id for image in self.plan.opened.val.images])

    def _detect_here(self, answers: Measured) -> Found:
        recipe, val, detector = self.plan.recipe, self.plan.opened.val, answers.predictor.detector
        explain = None if self.explain is None else self._why(detector, self.explain)
        with size_kept(detector):
            return detect_dataset(answers, val, self.loader, recipe.selection, self._told(len(val)), explain)

    def _why(self, detector: Detector, explain: Explain) -> Callable[[Batch], DivergedError]:
        """What is said of a batch whose answers are not finite."""
        files = {image.id: image.path for image in self.plan.opened.val.images}
        return lambda batch: explain(detector, batch, files.get)

    def _told(self, images: int) -> Callable[[int], None]:
        """How far all are, as far as this process can know."""
        return lambda done: self.progress(min(done * self.ranks.count, images), images)

    def _evaluate(self, found: Found, intervals: bool, protocols: tuple[str, ...]) -> Evaluation:
        val = self.plan.opened.val
        return evaluate(
            val.truths, found, self.plan.opened.classes, protocols, intervals, sizes=val.sizes,
            score_floor=self.plan.recipe.validation.score,
        )  # fmt: skip

    def _taken(self, found: Found) -> Taken:
        """Which class was taken for which, by detections that are fairly sure."""
        classes = self.plan.opened.classes
        if len(classes) < 2:
            return {}
        counts = confusion(lay_out(self.plan.opened.val.truths, found, classes), SURE).counts[:-1, :-1]
        return {
            true: {said: int(n) for said, n in zip(classes, row, strict=True) if n}
            for true, row in zip(classes, counts.tolist(), strict=True)
        }


def gathered(shares: Sequence[Found], ids: Sequence[ImageId]) -> Found:
    """What several processes found, in the order of `ids`; ValueError unless each image was seen exactly once."""
    found = {image: detections for share in shares for image, detections in share.items()}
    if shares and (sum(map(len, shares)) != len(ids) or found.keys() != set(ids)):
        raise ValueError(f"expected each of {len(ids)} images once, got {[len(share) for share in shares]}")
    return {image: found[image] for image in ids} if shares else {}
