"""What `onestage val` judges: a run, weights, or detection files, and with which values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onestage.cli.terminal import Terminal
    from onestage.data.dataset import Dataset
    from onestage.data.detections.reading import Found
    from onestage.evaluation import Evaluation
    from onestage.records import Detections, ImageId

FOR_FILES = ("data", "split", "protocol", "format", "score", "at", "categories", "classes", "seed", "allow_loss")
ONLY_FOR_FILES = ("categories",)
# Which boxes are judged, and at what scale: keys of the recipe's `validation`.
LIMITS = ("score", "iou", "candidates", "most", "scale")
WEIGHTS = (".safetensors", ".pth", ".pt", ".weights", ".ckpt")


@dataclass(frozen=True)
class Judged:
    """What was judged on what."""

    what: str
    data: str
    dataset: Dataset
    detections: Mapping[ImageId, Detections]
    evaluation: Evaluation
    found: Found | None = None
    written: str = ""


def judge(terminal: Terminal, place: str, keys: dict[str, Any]) -> Judged:
    """Judge what stands at `place`: a run's folder or name, weights, or detections in a file or folder.

    Raises UsageError for keys that have no effect on it, and whatever reading and judging raise.
    """
    from onestage.experiments.run import Run
    from onestage.models.published import PUBLISHED, published

    path = Path(place)
    if (known := published(place)) is not None:
        judged = _judge_weights(terminal, known.file_for(keys.get("model")), {"model": known.model, **keys}, {})
        return replace(judged, what=place)
    if _holds_detections(path, keys):
        return _judge_file(terminal, path, keys)
    _refuse_dead(keys, [key for key in keys if key in ONLY_FOR_FILES], "weights")
    if "write" not in keys:
        _refuse_dead(keys, [key for key in ("format", "plus_one") if key in keys], "weights without write=FOLDER")
    if path.is_file() or path.suffix in WEIGHTS:
        return _judge_weights(terminal, path, keys, {})
    run = Run.open(place, others=PUBLISHED)
    which = keys.pop("weights", "best")
    recipe = run.recipe
    validation = recipe.get("validation") or {}
    own = {
        "data": recipe.get("data"), "classes": recipe.get("classes"),
        "seed": recipe.get("split_seed", recipe.get("seed", 0)),
        "allow_loss": recipe.get("allow_loss", False), "protocol": validation.get("protocols"),
        "fit": validation.get("fit") or recipe.get("fit"), "precision": recipe.get("precision"),
        **{key: validation.get(key) for key in LIMITS},
    }  # fmt: skip
    return _judge_weights(terminal, run.weights_dir / f"{which}.safetensors", keys, own)


def _judge_weights(terminal: Terminal, path: Path, given: Mapping[str, Any], own: Mapping[str, Any]) -> Judged:
    from onestage.cli.words import listed
    from onestage.data.one_set import open_set
    from onestage.errors import ModelError, UsageError

    beyond = [f"{key}: expected a number from 0 to 1, got {given[key]!r}" for key in ("score", "at")
              if key in given and not 0 <= given[key] <= 1]  # fmt: skip
    if beyond:
        raise UsageError("val: values that cannot be used", problems=beyond)
    if not path.is_file():
        raise ModelError(f"there are no weights at {path}", hint="the run may have been stopped before it was judged")
    known = {key: value for key, value in own.items() if value is not None}
    keys = {**known, **given}
    data = _needed(keys)
    with terminal.waiting("loading torch"):
        from onestage.models.weights import load_detector
        from onestage.training.judging.dataset import judge as judge_detector
    named = listed(given.get("classes"))
    loaded = load_detector(path, given.get("model"), named or ())
    keys = _limits(loaded.detector.name, {"fit": loaded.fit, "scale": loaded.scale}, keys, given)
    options = {key: keys[key] for key in (*LIMITS, "fit", "precision", "batch", "device", "at") if key in keys}
    dataset = open_set(
        data,
        keys.get("split"),
        classes=loaded.classes,
        seed=keys.get("seed", 0),
        allow_loss=keys.get("allow_loss", False),
    )
    protocols = listed(keys.get("protocol")) or ()
    write = _writer(keys, dataset)
    with terminal.waiting(f"judging {len(dataset)} images"):
        evaluation, found = judge_detector(loaded.detector, dataset, protocols, **options)
    return Judged(str(path), str(data), dataset, found, evaluation, written=write(found))


def _writer(keys: Mapping[str, Any], dataset: Dataset) -> Callable[[Mapping[ImageId, Detections]], str]:
    """Writes what is found where `write` says, and tells it in words; UsageError at once where that cannot be."""
    from onestage.data.detections.writing import FACES, WRITTEN, refuse_filled, refuse_unwritable, write_detections
    from onestage.errors import UsageError

    if not keys.get("write"):
        return lambda found: ""
    folder, plus_one = Path(keys["write"]).expanduser(), keys.get("plus_one", False)
    form = keys.get("format") or (dataset.format if dataset.format in FACES else None)
    if form is None:
        raise UsageError("val: write needs a format", hint=f"format={', '.join(WRITTEN)}")
    refuse_unwritable(form, dataset.classes, plus_one)
    refuse_filled(folder)
    return lambda found: f"{folder}, format {form}: " + write_detections(
        form, found, dataset.images, dataset.classes, folder, split=dataset.split, plus_one=plus_one
    )  # fmt: skip


def _limits(model: str, card: Mapping[str, Any], keys: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys with what the weights and the model's recipe say where the run says nothing."""
    from onestage import models
    from onestage.errors import UsageError

    recipe = models.defaults(model)
    own = {key: recipe[f"validation.{key}"] for key in LIMITS if f"validation.{key}" in recipe}
    result = {**own, **card, **keys}
    if result["fit"] != "native":
        if "scale" in given:
            raise UsageError(f"val: scale has no effect on fit={result['fit']}", hint="fit=native")
        result.pop("scale", None)
    return result


def _holds_detections(path: Path, keys: Mapping[str, Any]) -> bool:
    """Whether detection files are meant: any file or folder that is neither weights nor a run."""
    from onestage.data.detections import recognise
    from onestage.experiments.naming import run_names

    if path.is_dir():
        return not (path / "run.json").is_file() and str(path) not in run_names()
    if path.suffix.lower() in (".json", ".txt", ".csv", ".tsv"):
        return True
    if "format" in keys and not path.exists() and str(path) not in run_names():
        return True
    if not path.is_file() or path.suffix.lower() in WEIGHTS:
        return False
    # a file of any other name: weights where a model is named for it
    return "format" in keys or "model" not in keys or bool(recognise(path))


def _judge_file(terminal: Terminal, path: Path, keys: Mapping[str, Any]) -> Judged:
    """Detections against the truth, without torch and, for COCO data, without images."""
    from onestage.analysis.judging import judge_detections
    from onestage.cli.words import listed

    _refuse_dead(keys, [key for key in keys if key not in FOR_FILES], "a detection file")
    options = {key: keys[key] for key in ("split", "format", "categories", "score", "at", "seed", "allow_loss")
               if key in keys}  # fmt: skip
    with terminal.steps() as progress:
        judged = judge_detections(
            path, keys.get("data"), protocols=listed(keys.get("protocol")), classes=listed(keys.get("classes")),
            progress=progress, **options,
        )  # fmt: skip
    return Judged(str(path), judged.data, judged.dataset, judged.detections, judged.evaluation, judged.found)


def _refuse_dead(keys: Mapping[str, Any], dead: Sequence[str], what: str) -> None:
    from onestage.errors import UsageError

    if dead:
        problems = [f"{key} has no effect on {what}" for key in dead]
        raise UsageError("val: keys without effect", problems=problems, hint="leave them away")


def _needed(keys: Mapping[str, Any]) -> Any:
    from onestage.errors import UsageError

    if not keys.get("data"):
        raise UsageError("val: data=… is missing", hint="a dataset folder or file, or the name of a sample (data ls)")
    return keys["data"]
