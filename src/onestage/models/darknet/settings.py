"""What a darknet cfg says of training, as keys of a recipe; what is not done is told with its line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onestage.errors import ModelError
from onestage.models.darknet.cfg import Cfg, Section
from onestage.models.darknet.policies import LR, POLICIES, POWER, positive
from onestage.models.darknet.section_keys import unknown
from onestage.models.darknet.unfollowed import (
    HARMLESS,
    HEAD_TOLD,
    LAYER_TOLD,
    NET_TOLD,
    Note,
)
from onestage.records import Finding, Where

# A [net] with none of these describes a network alone: what it leaves out is not taken from darknet.
TRAINS = ("learning_rate", "policy", "max_batches")
# darknet's values where a cfg that trains says nothing.
MOMENTUM, DECAY, JITTER = 0.9, 0.0001, 0.2
UNDER = 0.999999  # the most of what a recipe takes below 1 alone
EVERY = 10  # steps between changes of the input size
LOW, HIGH, AROUND = 320, 608, 1.4  # of pjreddie's random=1, whatever the cfg's size; of AlexeyAB's, around it


@dataclass
class Settings:
    """Dotted keys of a recipe that a cfg gives, below whatever the user says, and what of it is not followed."""

    keys: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)


def settings(cfg: Cfg) -> Settings:
    """How a cfg is trained, from its [net] and its heads, as keys of a recipe.

    Follows parse_net_options and parse_yolo of AlexeyAB's darknet, which reads pjreddie's cfgs alike; what a cfg that
    trains leaves out has darknet's value. Keys are in the words of a recipe: batch, accumulate, steps, optimiser.*,
    schedule.*, multiscale.*, augmentation.*, options.*, freeze. Size, thresholds of the loss and weights of its parts
    are the network's own to take from the cfg. Raises ModelError that lists every key that darknet does not know and
    every value that cannot be read.
    """
    made = Settings()
    problems = [told for section in (cfg.net, *cfg.layers) for told in unknown(section)]
    for take in (_fit, _batch, _optimiser, _schedule, _length, _augmentation, _multiscale, _heads_say, _layers):
        try:
            take(cfg, made)
        except ModelError as error:
            problems.append(error.message + (f" ({error.hint})" if error.hint else ""))
    if problems:
        raise ModelError(f"{cfg.source} cannot be trained by", problems=problems)
    made.notes += [
        *_told(cfg.net, NET_TOLD), *(note for head in _heads(cfg) for note in _told(head, HEAD_TOLD)),
        *(note for layer in cfg.layers for note in _told(layer, LAYER_TOLD)),
    ]  # fmt: skip
    first: dict[tuple[str, str, str], Note] = {}
    for note in sorted(made.notes, key=lambda note: note.line):  # what all heads say alike is told once
        first.setdefault((note.key, note.value, note.why), note)
    made.notes = list(first.values())
    return made


def unfollowed(cfg: Cfg) -> list[Finding]:
    """What of a cfg is not followed in training, a finding for each line."""
    told = [_finding(cfg, note.line, str(note), key=note.key, value=note.value) for note in settings(cfg).notes]
    return told + [_finding(cfg, None, note) for note in cfg.notes]


def _finding(cfg: Cfg, line: int | None, what: str, **evidence: Any) -> Finding:
    return Finding(
        "cfg-not-followed", "note", Where(file=cfg.source, line=line), f"{cfg.source}, {what}",
        "in this the run is not darknet's; all other lines of the cfg are followed",
        "what the line says to do instead, where it says so",
        evidence,
    )  # fmt: skip


def _heads(cfg: Cfg) -> list[Section]:
    return [layer for layer in cfg.layers if layer.kind in ("yolo", "region")]


def _trains(cfg: Cfg) -> bool:
    return any(key in cfg.net.options for key in TRAINS)


def _told(section: Section, why: Mapping[str, tuple[float, str]]) -> Iterator[Note]:
    for key, value in section.options.items():
        if key in why and not _is(value, why[key][0]) and value not in HARMLESS.get(key, ()):
            yield Note(key, section.lines[key], value, why[key][1])


def _is(text: str, neutral: float) -> bool:
    try:
        return float(text) == neutral
    except ValueError:
        return False


def fit_of(cfg: Cfg) -> str:
    """How darknet brings an image to the network of this cfg: as letter_box says; else AlexeyAB's squashes it.

    pjreddie's, for whom a cfg is that has no key of AlexeyAB's, knows the letterbox alone.
    """
    return "letterbox" if cfg.net.number("letter_box", int(not cfg.is_alexeys)) else "squash"


def _fit(cfg: Cfg, made: Settings) -> None:
    if "letter_box" in cfg.net.options or fit_of(cfg) == "squash":  # a letterbox is what all other cfgs have
        made.keys["fit"] = fit_of(cfg)


def _batch(cfg: Cfg, made: Settings) -> None:
    net = cfg.net
    batch, pieces = net.number("batch", 1), net.number("subdivisions", 1)
    if batch <= 1:
        if "batch" in net.options and _trains(cfg):
            made.notes.append(Note("batch", net.lines["batch"], net.options["batch"], (
                "darknet's setting for testing; the model's own batch is taken instead. Say them as "
                "the commented lines of the cfg have batch and subdivisions, such as batch=64 accumulate=16"
            )))  # fmt: skip
        return
    if not 1 <= pieces <= batch:
        raise ModelError(f"{net.at('subdivisions')}: expected 1 to batch={batch}, got {pieces}")
    made.keys |= {"batch": batch // pieces * pieces, "accumulate": pieces}
    if batch % pieces:
        made.notes.append(Note("batch", net.lines["batch"], net.options["batch"], (
            f"darknet takes {pieces} x {batch // pieces} = {batch // pieces * pieces} images, and so is done here"
        )))  # fmt: skip


def _optimiser(cfg: Cfg, made: Settings) -> None:
    """SGD as darknet's update has it (docs/yolo.md); its Adam takes sums over a batch, so eps is a share of theirs."""
    net = cfg.net
    if not _trains(cfg):
        return
    made.keys |= {
        "optimiser.name": "sgd", "optimiser.lr": positive(net, "learning_rate", LR),
        "optimiser.momentum": net.real("momentum", MOMENTUM, 0.0, UNDER),
        "optimiser.decay": net.real("decay", DECAY, 0.0),
        "clip": 0.0, "ema": net.real("ema_alpha", 0.0, 0.0, UNDER),
    }  # fmt: skip
    if net.number("adam", 0):
        made.keys |= {
            "optimiser.name": "adam", "optimiser.momentum": net.real("B1", 0.9, 0.0, UNDER),
            "optimiser.beta2": net.real("B2", 0.999, 0.0, UNDER),
            "optimiser.eps": positive(net, "eps", 1e-6) / max(net.number("batch", 1), 1),
        }  # fmt: skip


def _schedule(cfg: Cfg, made: Settings) -> None:
    if not _trains(cfg):
        return
    net = cfg.net
    policy = net.word("policy", "constant", POLICIES)
    warmup = net.number("burn_in", 0)
    if warmup < 0:
        raise ModelError(f"{net.at('burn_in')}: expected 0 or more, got {warmup}")
    keys = {"name": "constant", "warmup": warmup, **POLICIES[policy](net, made.notes)}
    if warmup:
        keys |= {"start": 0.0, "rise": positive(net, "power", POWER)}
    made.keys |= {f"schedule.{key}": value for key, value in keys.items()}


def _length(cfg: Cfg, made: Settings) -> None:
    steps = cfg.net.number("max_batches", 0)
    if steps < 0 or (steps == 0 and "max_batches" in cfg.net.options):
        raise ModelError(f"{cfg.net.at('max_batches')}: expected 1 or more, got {steps}")
    if steps:
        made.keys["steps"] = steps


def _augmentation(cfg: Cfg, made: Settings) -> None:
    """Hue, saturation, exposure and flip of [net], the jitter of the last head, which is the one darknet reads.

    The jitter is AlexeyAB's crop where the cfg is for his darknet alone, else pjreddie's.
    """
    net, heads = cfg.net, _heads(cfg)
    if not _trains(cfg) or not heads:
        return
    options: dict[str, Any] = {
        "jitter": heads[-1].real("jitter", JITTER, 0.0, UNDER), "hue": net.real("hue", 0.0, 0.0, 0.5),
        "saturation": _factor(net, "saturation"), "exposure": _factor(net, "exposure"),
        "flip": 0.5 if net.number("flip", 1) else 0.0,
    }  # fmt: skip
    if cfg.is_alexeys:
        options |= {"crop": True, "resize": max(heads[-1].real("resize", 1.0), 1.0)}
    policy = "darknet"
    if net.number("mosaic", 0):
        policy, options = "mosaic", {
            "zoom": {"policy": "darknet", **options}, "probability": 0.5, "centre": [0.2, 0.8], "scale": [1.0, 1.0],
        }  # fmt: skip
    made.keys |= {"augmentation.policy": policy, "augmentation.rest": 0.0, "augmentation.options": options}


def _factor(net: Section, key: str) -> float:
    """A factor that colours are multiplied or as often divided by: 0.5 does what 2 does."""
    value = positive(net, key)
    return value if value >= 1 else 1 / value


def _multiscale(cfg: Cfg, made: Settings) -> None:
    """The sizes of random= as shares of the cfg's own, a little wide, so that the ends are in.

    pjreddie's darknet draws 320 … 608 whatever the size; AlexeyAB's a step above the size divided by 1.4 (or what
    random= says) to a step above the size times it, which for 416 are the same.
    """
    heads = _heads(cfg)
    around = heads[-1].real("random", 0.0, 0.0, 10.0) if heads else 0.0
    if not around or not _trains(cfg):
        return
    if cfg.net.number("resize_step", 32) < 1:
        raise ModelError(f"{cfg.net.at('resize_step')}: expected 1 or more, got {cfg.net.options['resize_step']}")
    sides, step = (cfg.net.number("width", 416), cfg.net.number("height", 416)), cfg.net.number("resize_step", 32)
    base = max(sides)
    low, high = LOW, HIGH
    if around != 1 or not LOW <= base <= HIGH or sides[0] != sides[1] or step != 32:
        coefficient = AROUND if around == 1 else around
        if coefficient < 1:
            raise ModelError(f"{heads[-1].at('random')}: expected 0, 1 or a factor above 1, got {around:g}")
        low, high = (int(base * by / step + 1.5) * step for by in (1 / coefficient, coefficient))
    made.keys |= {
        "multiscale.low": min(math.floor(low / base * 1e4) / 1e4, 1.0), "multiscale.step": step,
        "multiscale.high": max(math.ceil(high / base * 1e4) / 1e4, 1.0), "multiscale.every": EVERY,
    }  # fmt: skip
    made.notes.append(Note("random", heads[-1].lines["random"], heads[-1].options["random"], (
        f"sizes from {min(low, base)} to {max(high, base)} come (in proportion, where another size is given), each "
        "as often as any other, to the last step: darknet keeps its largest for the first and the last steps"
    )))  # fmt: skip


def _heads_say(cfg: Cfg, made: Settings) -> None:
    """What the network does not take from its heads itself, and what it takes of the first head alone."""
    heads = _heads(cfg)
    for key, option in (("max", "most"), ("label_smooth_eps", "label_smoothing")):
        said = [head for head in heads if key in head.options]
        if said:
            made.keys[f"options.{option}"] = (
                said[-1].number(key, 0) if key == "max" else said[-1].real(key, 0.0, 0.0, 0.999)
            )
    for key in ("ignore_thresh", "truth_thresh", "iou_thresh", "iou_loss"):
        first = heads[0].options.get(key) if heads else None
        made.notes += [
            Note(key, head.lines[key], head.options[key], (
                f"the first head says {first or 'nothing'}, which is taken for all of them"
            )) for head in heads if head.options.get(key, first) != first
        ]  # fmt: skip


def _layers(cfg: Cfg, made: Settings) -> None:
    """What does not learn (stopbackward: that layer and all before it), and what learns at a rate of its own."""
    weighted = [layer for layer in cfg.layers if layer.kind in ("convolutional", "conv")]
    stops = [int(layer.index or 0) for layer in cfg.layers if layer.number("stopbackward", 0) == 1]
    made.notes += [
        Note("stopbackward", layer.lines["stopbackward"], layer.options["stopbackward"], (
            "not done: AlexeyAB's darknet freezes for so many steps; stages, the first with freeze, do the same"
        )) for layer in cfg.layers if layer.number("stopbackward", 0) > 1
    ]  # fmt: skip
    scales = {f"layers.{layer.index}": layer.real("learning_rate_scale", 1.0) for layer in weighted}
    still = [f"layers.{layer.index}" for layer in weighted if stops and int(layer.index or 0) <= max(stops)]
    still += [name for name, scale in scales.items() if scale == 0 and name not in still]
    rates = {name: scale for name, scale in scales.items() if scale not in (0, 1) and name not in still}
    if still:
        made.keys["freeze"] = still
    if rates:
        made.keys["optimiser.rates"] = rates
