"""From pixels to boxes; knows no file format and no metric."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from onestage.models.detector import Detector
    from onestage.records import Finding

# Name → "module:class", called with (classes, size=None, **options). Text, so that naming a model imports no torch.
MODELS: dict[str, str] = {
    "ssd300": "onestage.models.ssd:SSD300",
    "ssd512": "onestage.models.ssd:SSD512",
    "ssd-lite0": "onestage.models.lite:SSDLite0",
    "ssd-mobilenetv2": "onestage.models.lite:SSDMobileNetV2",
    "faceboxes": "onestage.models.faceboxes:FaceBoxes",
    "yolov3": "onestage.models.darknet.named:YOLOv3",
    "yolov3-spp": "onestage.models.darknet.named:YOLOv3SPP",
    "yolov3-tiny": "onestage.models.darknet.named:YOLOv3Tiny",
    "yolov4-tiny": "onestage.models.darknet.named:YOLOv4Tiny",
    "yolov2-tiny": "onestage.models.darknet.named:YOLOv2Tiny",
    "darknet": "onestage.models.darknet.detector:Darknet",
}
# A name that ends so is a file of darknet: the model "darknet" with its option `cfg`.
CFG = ".cfg"
# What a recipe's `weights` may say that names no trained detector.
UNTRAINED = (None, False, "", "none", "None", "imagenet")
# What `build` is told besides a model's options, none of which has such a name.
TOLD = ("name", "classes", "size")


def build(name: str, classes: int, size: tuple[int, int] | None = None, **options: Any) -> Detector:
    """The detector of that name for `classes` classes at input `size` (width, height), its own default where None.

    Raises ModelError for an unknown name and for a size or an option the model does not take.
    """
    if is_cfg(name):
        options = {"cfg": name, **options}
    detector: Detector = model_class(name)(classes, size=size, **options)
    return detector


def is_cfg(name: str) -> bool:
    """Whether a model is named by a cfg of darknet's, a file."""
    return name.lower().endswith(CFG)


def named(keys: Mapping[str, Any]) -> dict[str, Any]:
    """Flat recipe keys with model "darknet" and the option `cfg` in place of a model named by its cfg.

    ModelError where the option names another.
    """
    name = keys.get("model")
    if not isinstance(name, str) or not is_cfg(name):
        return dict(keys)
    options = keys.get("options")
    other = keys.get("options.cfg", options.get("cfg") if isinstance(options, Mapping) else None)
    if other not in (None, name):
        raise ModelError(f"model={name} and options.cfg={str(other)[:100]!r} are two networks", hint="one of them")
    return {**keys, "model": "darknet", "options.cfg": name}


def cfg_name(options: Mapping[str, Any]) -> str | None:
    """The name of the cfg file that is among a model's options; None without one, or for its text."""
    cfg = options.get("cfg")
    return Path(cfg).name if isinstance(cfg, str) and "\n" not in cfg else None


def defaults(name: str, weights: object = None, cfg: object = None) -> Mapping[str, Any]:
    """Recipe keys that suit the model of that name, as its class states them in `recipe_defaults`.

    Where it starts from trained `weights` (a file, or the name of published ones) those of `tuning_defaults` go first,
    where it is built by a `cfg` of darknet's (a file, or its text) what that says of training goes before them all.
    """
    model = model_class(name)
    keys = {**model.recipe_defaults, **(model.tuning_defaults if weights not in UNTRAINED else {})}
    if not isinstance(cfg, str):
        return keys
    from onestage.models.darknet.cfg import read
    from onestage.models.darknet.settings import settings

    return {**keys, **settings(read(cfg)).keys}


def unfollowed(options: Mapping[str, Any]) -> list[Finding]:
    """What of the cfg file among a model's options training does not follow; nothing for a cfg that is a text."""
    cfg = options.get("cfg")
    if not isinstance(cfg, str) or "\n" in cfg:
        return []
    from onestage.models.darknet.cfg import read
    from onestage.models.darknet.settings import unfollowed as found

    return found(read(cfg))


def refuse_unknown(name: str) -> None:
    """ModelError for the name of no model; it loads nothing."""
    if name not in MODELS:
        from onestage.models.published import PUBLISHED

        if (known := PUBLISHED.get(name)) is not None:
            raise ModelError(
                f"{name} is no model: it is the name of weights of {known.model}",
                hint=f"model={known.model} weights={name}; in Python Detector.load({name!r})",
            )
        raise ModelError(
            f"unknown model {name!r}{did_you_mean(name, MODELS)}",
            hint=f"one of: {', '.join(sorted(MODELS))}, or a .cfg file of darknet",
        )


def model_class(name: str) -> Any:
    """The class behind a model's name; ModelError for an unknown one."""
    name = "darknet" if is_cfg(name) else name
    refuse_unknown(name)
    module, _, attribute = MODELS[name].partition(":")
    return getattr(import_module(module), attribute)
