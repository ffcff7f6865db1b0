"""The judge: from detections and annotations to numbers; no files, never torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from onestage.errors import DataError, UsageError, did_you_mean
from onestage.evaluation import coco, darknet, details, fddb, operating, uncertainty, visdrone, voc, widerface
from onestage.evaluation.judgement import Judgement, Protocol
from onestage.evaluation.pool import Pool, lay_out
from onestage.evaluation.result import Evaluation, truncation
from onestage.records import Annotations, Detections, ImageId, Metrics

PROTOCOLS: dict[str, Protocol] = {
    "voc07": Protocol(voc.voc07, "mAP50", "VOC devkit, 2007: 11 points"),
    "voc10": Protocol(voc.voc10, "mAP50", "VOC devkit, from 2010: whole area"),
    "voc07+1": Protocol(partial(voc.voc07, pixel_offset=1.0), "mAP50", "lufficc/SSD, py-faster-rcnn: a pixel added"),
    "voc10+1": Protocol(partial(voc.voc10, pixel_offset=1.0), "mAP50", "py-faster-rcnn: a pixel added"),
    "coco": Protocol(coco.coco, "mAP50-95", "pycocotools"),
    "darknet": Protocol(darknet.darknet, "mAP50", "AlexeyAB/darknet, detector map: whole area"),
    "darknet11": Protocol(partial(darknet.darknet, points=11), "mAP50", "AlexeyAB/darknet, detector map -points 11"),
    "darknet101": Protocol(partial(darknet.darknet, points=101), "mAP50", "AlexeyAB/darknet, detector map -points 101"),
    "visdrone": Protocol(visdrone.visdrone, "AP", "VisDrone2018-DET toolkit"),
    "fddb": Protocol(fddb.fddb, "disc@1000", "FDDB's evaluation code (UMass)", fddb.unfit),
    "widerface": Protocol(widerface.widerface, "APhard", "WIDER FACE eval_tools, as ported", widerface.unfit),
}

# What detections are judged by where nobody says.
DEFAULT_PROTOCOLS = ("voc07", "voc10", "coco")
# Protocols that can be asked for at another IoU: voc07@0.75.
AT_ANY_IOU = ("voc07", "voc10", "voc07+1", "voc10+1")

__all__ = [
    "DEFAULT_PROTOCOLS", "PROTOCOLS", "Evaluation", "Judgement", "Pool", "Protocol", "evaluate", "lay_out",
    "protocols_named", "usual_protocols",
]  # fmt: skip


def protocols_named(names: Sequence[str]) -> dict[str, Protocol]:
    """The protocols that are called so in `PROTOCOLS`; behind those in `AT_ANY_IOU` @ and an IoU may stand: voc07@0.3.

    Raises UsageError that names every unknown one.
    """
    found = {name: PROTOCOLS.get(name) or _at_iou(name) for name in names}
    if unknown := [name for name, protocol in found.items() if protocol is None]:
        raise UsageError(
            "unknown protocol", problems=[f"{name!r}{did_you_mean(name, PROTOCOLS)}" for name in unknown],
            hint=f"one of {', '.join(PROTOCOLS)}; another IoU for VOC's as voc10@0.75",
        )  # fmt: skip
    return {name: protocol for name, protocol in found.items() if protocol is not None}


def usual_protocols(benchmark: str, pool: Pool) -> tuple[str, ...]:
    """What a set is judged by where nobody says; before all others, where it fits, the benchmark's own.

    `benchmark` is the format of the set, such as "widerface"; most have no protocol of their name.
    """
    own = None if benchmark in DEFAULT_PROTOCOLS else PROTOCOLS.get(benchmark)
    return DEFAULT_PROTOCOLS if own is None or own.unfit(pool) is not None else (benchmark, *DEFAULT_PROTOCOLS)


def _at_iou(name: str) -> Protocol | None:
    of, _, asked = name.partition("@")
    try:
        iou = float(asked)
    except ValueError:
        return None
    if of not in AT_ANY_IOU or not 0 < iou < 1:
        return None
    judge = partial(PROTOCOLS[of].judge, thresholds=(iou,))  # type: ignore[call-arg]  # VOC's take them
    return Protocol(lambda pool: replace(judge(pool), protocol=name), f"mAP{100 * iou:g}", PROTOCOLS[of].about)


def evaluate(
    truths: Mapping[ImageId, Annotations],
    detections: Mapping[ImageId, Detections],
    classes: Sequence[str],
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    intervals: bool = True,
    *,
    sizes: Mapping[ImageId, tuple[int, int]] | None = None,
    score_floor: float | None = None,
    score: float | None = None,
    resamples: int = uncertainty.RESAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda what: None,
) -> Evaluation:
    """Judge the detections of a set of images by the named protocols.

    `protocols` are names as `protocols_named` takes them. Every image of `truths` counts; one without detections is an
    image in which nothing was found. Rows are those of each protocol (see `voc07` and `coco`), and precision, recall
    and F1 at the score of best mean F1, or at `score` where given, by the matching of the first VOC protocol asked
    for. `intervals` adds 95 % bootstrap intervals over images from `resamples` draws with `seed`. `score_floor` is the
    score below which the detector kept nothing; without it the lowest score seen is taken, and above 0.01 the result is
    marked as truncated.

    `sizes` are width and height of the images, where known (VisDrone's rule asks for them). `progress` is told in words
    what is being done.

    Calibration, confusion and curves by score are reckoned when `Evaluation.details` or `as_dict` asks for them.

    Raises DataError for detections that do not fit the truth or a truth that lacks what a protocol needs, UsageError
    for an unknown protocol; each names all.
    """
    asked = protocols_named(protocols)
    progress("laying out truths and detections")
    laid_out = lay_out(truths, detections, classes, sizes)
    unfit = [f"{name}: {why}" for name, protocol in asked.items() if (why := protocol.unfit(laid_out)) is not None]
    if unfit:
        raise DataError("protocols that this truth cannot be judged by", problems=unfit)
    weights = uncertainty.multiplicities(len(laid_out.images), resamples, seed) if intervals else None
    judged = {}
    for name, protocol in asked.items():
        progress(f"judging by {name}")
        judged[name] = protocol(laid_out)
    base = next((name for name in ("voc10", "voc07", "voc10+1", "voc07+1") if name in judged), None)
    ranked = judged[base].rankings[""] if base else voc.rankings(laid_out)
    point = operating.operating_points(ranked, laid_out.classes, score)
    metrics = Metrics(())
    for name, judgement in judged.items():
        progress(f"judging by {name}" if weights is None else f"{resamples:,} resamples by {name}")
        metrics += judgement.metrics(weights)
    if base:
        rates = operating.at_score(ranked, laid_out.classes, point["score"], base, len(laid_out.images))
        metrics += rates.metrics(weights)
    progress("curves")
    floor, note = truncation(laid_out, judged, score_floor)
    curves: dict[str, Mapping[str, operating.Curve]] = {
        f"{base or 'voc10'}@0.5": operating.curves(ranked, laid_out.classes)
    }
    curves |= {name: judgement.curves for name, judgement in judged.items() if judgement.curves}
    notes = [note] if note else []
    notes += [f"{name}: {said}" for name, judgement in judged.items() for said in judgement.notes]
    return Evaluation(
        metrics=metrics,
        curves=curves,
        operating_point=point,
        protocols=tuple(asked),
        n_images=len(laid_out.images),
        score_floor=floor,
        truncated=bool(note),
        notes=tuple(notes),
        look_closer=partial(details.details, laid_out, ranked, point["score"], weights, base or "voc10"),
    )
