"""What the rules must know of a run beside its rows: classes, ratio, schedule, stages, frozen parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from onestage.experiments.curve_rules import chance
from onestage.experiments.curve_rules.seen import number
from onestage.experiments.levels import levels_in

if TYPE_CHECKING:
    from onestage.experiments.run import Run

FRESH = (None, "none", "imagenet")


@dataclass(frozen=True)
class Facts:
    """A run as its rules see it; what is unknown stays at its default, and rules that need it stay silent.

    `class_counts`: boxes per class in training. `class_loss`: "softmax-ohem" (with `ratio` negatives per positive) or
    "focal" (with `priors` of an image, `gamma`, `alpha`); any other gives its `chance` and `start` level per positive.
    `class_part`: that part's name in the rows. `warmup` in steps. `calm_epoch`: from which augmentation is calm,
    0-based. `constant`: the learning rate stays once it has warmed up. `legs`: first steps (0-based) of the later
    stages. `level_shares`: share of the truths that each level should get by size, `level_words` what each is, with the
    stride that `level_strides` has, whatever their order. `anchored`: whether a truth goes to
    the level of its best anchor (YOLO). `fresh`: heads start from random weights. `memory_limit`: bytes there are.
    `weight_norm`: norm of the weights that are trained.
    """

    class_counts: tuple[float, ...] = ()
    classes: int = 0
    class_loss: str | None = None
    class_part: str = "cls"
    ratio: float = 3.0
    priors: int | None = None
    gamma: float = 2.0
    alpha: float = 0.25
    chance: float | None = None
    start: float | None = None
    optimiser: str = "adamw"
    steps: int = 0
    steps_per_epoch: int = 0
    epochs: int = 0
    batch: int = 0
    images: int = 0
    warmup: int = 0
    clip: float = 0.0
    metric: str = "mAP50-95"
    evaluations: int = 0
    calm_epoch: int | None = None
    constant: bool = False
    legs: tuple[int, ...] = ()
    frozen: tuple[str, ...] = ()
    level_shares: tuple[float, ...] = ()
    level_words: tuple[str, ...] = ()
    level_strides: tuple[float, ...] = ()
    anchored: bool = False
    fresh: bool = True
    memory_limit: float | None = None
    weight_norm: float | None = None
    class_names: tuple[str, ...] = field(default=())

    def chance_level(self, positives_per_image: float, ratio: float | None = None) -> float | None:
        """The class loss per positive of a head that sees nothing; None where it is not known.

        `ratio` is how many negatives there really were for each positive, where that is known: mining finds fewer than
        it is asked for in small images full of objects.
        """
        if self.chance is not None:
            return self.chance
        shares = self.class_counts or ((1.0,) if self.classes == 1 else ())
        if not shares or sum(shares) <= 0:
            return None
        if self.class_loss == "softmax-ohem":
            return chance.mined(self.ratio if ratio is None else ratio, shares)
        if self.class_loss == "focal" and self.priors and positives_per_image > 0:
            negatives = max(self.priors / positives_per_image - 1, 0.0)
            return chance.focal(negatives, [n / sum(shares) for n in shares], self.gamma, self.alpha)
        return None

    def start_level(self, ratio: float | None = None) -> float | None:
        """The class loss per positive of a head with equal scores; None where it is not known. `ratio` as above."""
        if self.start is not None:
            return self.start
        ratio = self.ratio if ratio is None else ratio
        return chance.untrained(ratio, self.classes) if self.class_loss == "softmax-ohem" and self.classes else None

    @classmethod
    def of(cls, recipe: Mapping[str, Any], info: Mapping[str, Any], **known: Any) -> Facts:
        """From a completed recipe, as in recipe.yaml, and run.json; `known` are fields the caller knows better."""
        data = _mapping(info.get("data"))
        classes = list(recipe.get("classes") or data.get("classes") or ())
        images = int(number(_mapping(data.get("train")).get("images")) or 0)
        epochs, batch = int(number(recipe.get("epochs")) or 0), int(number(recipe.get("batch")) or 0)
        per_epoch = max(images // batch, 1) if images and batch else 0
        every = int(number(_mapping(recipe.get("validation")).get("every")) or 0)
        augmentation, stages = _mapping(recipe.get("augmentation")), recipe.get("stages") or ()
        rest = number(augmentation.get("rest")) or 0.0
        first = _mapping(stages[0]) if stages else {}  # what a stage sets itself goes before the recipe's
        schedule = {**_mapping(recipe.get("schedule")), **_mapping(first.get("schedule"))}
        optimiser = {**_mapping(recipe.get("optimiser")), **_mapping(first.get("optimiser"))}
        levels = levels_in(info)
        found: dict[str, Any] = {
            "classes": len(classes), "class_names": tuple(map(str, classes)), **_loss_of(recipe),
            "optimiser": str(optimiser.get("name") or "adamw"), "epochs": epochs,
            "batch": batch, "images": images, "steps_per_epoch": per_epoch,
            "steps": int(number(recipe.get("steps")) or 0) or per_epoch * epochs,
            "warmup": _steps(schedule.get("warmup"), per_epoch), "clip": _clip(recipe, stages),
            "metric": str(_mapping(recipe.get("validation")).get("metric") or "mAP50-95"),
            "evaluations": -(-epochs // every) if every else 0, "legs": _legs(stages, per_epoch),
            "constant": schedule.get("name") == "constant" and not stages,
            "calm_epoch": round(epochs * (1 - rest)) if rest and epochs else None,
            "level_words": tuple(level.words for level in levels),
            "level_strides": tuple(level.stride for level in levels),
            "frozen": tuple(map(str, recipe.get("freeze") or ())), "fresh": recipe.get("weights") in FRESH,
        }  # fmt: skip
        return cls(**{**found, **known})

    @classmethod
    def of_run(cls, run: Run) -> Facts:
        """From a run folder; the boxes per class are those of its judgement, where it has one."""
        info, rows = run.info, run.metrics.get("rows") or []
        counts = {str(row["class"]): float(row["n"]) for row in rows if row.get("class") is not None and row.get("n")}
        facts = cls.of(run.recipe, info)
        names = facts.class_names
        known = {"class_counts": tuple(counts.get(name, 0.0) for name in names)} if counts and names else {}
        parents = info.get("parents") or ()
        return cls.of(run.recipe, info, **known, fresh=facts.fresh and not parents)


def _loss_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What the model's name and options say of its class loss."""
    model, options = str(recipe.get("model") or ""), _mapping(recipe.get("options"))
    if model.startswith("yolo") or model == "darknet":
        return {"class_loss": None, "anchored": True}
    default = "focal" if model.startswith("ssd-") else "softmax-ohem"
    ratio = 7.0 if model.startswith("faceboxes") else 3.0
    return {
        "class_loss": str(options.get("class_loss") or default), "ratio": _given(options, "negatives", ratio),
        "gamma": _given(options, "gamma", 2.0), "alpha": _given(options, "alpha", 0.25),
    }  # fmt: skip


def _legs(stages: Sequence[Any], per_epoch: int) -> tuple[int, ...]:
    """First steps of the stages after the first, where each says its epochs."""
    lengths = [_steps(stage.get("epochs"), 1) for stage in stages if isinstance(stage, Mapping)]
    return tuple(sum(lengths[:i]) * per_epoch for i in range(1, len(lengths)))


def _clip(recipe: Mapping[str, Any], stages: Sequence[Any]) -> float:
    """The largest gradient norm; 0 where there is none, or stages do not agree."""
    clip = float(number(recipe.get("clip")) or 0)
    others = {_mapping(stage).get("clip") for stage in stages} - {None, clip}
    return 0.0 if others else clip


def _steps(value: Any, per_epoch: int) -> int:
    """A length as recipes say it: a number of steps, "500 steps" or "2 epochs"; 0 for what is neither."""
    amount, _, unit = str(value).partition(" ")
    try:
        return round(float(amount) * (per_epoch if unit.startswith("epoch") else 1))
    except (ValueError, OverflowError):
        return 0


def _given(options: Mapping[str, Any], key: str, default: float) -> float:
    value = number(options.get(key))
    return default if value is None else float(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
