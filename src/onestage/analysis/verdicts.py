"""A comparison in words: one sentence for what came out, one for what could have been seen."""

from __future__ import annotations

import math

from onestage.evaluation.comparison import FEWEST_IMAGES, Difference

POINTS = 100
_SHOWN = 0.005  # points; less is shown as 0


def said(
    a: str, b: str, row: Difference, outcome: str, *, p: float | None, n_images: int, seeds: tuple[int, int],
    several: bool, level: float, see: float, images_needed: int | None, seeds_needed: int | None,
) -> str:  # fmt: skip
    """ "new is better by 1.8 mAP50-95 (95 % 0.4 to 3.2) on 548 images", and what its like is in other cases.

    Scores in points of 100; `p` is corrected for the other arms, `several` says that there are some; `see` is the
    difference for which `images_needed` and `seeds_needed` are told.
    """
    on = _on(n_images, seeds)
    than = f" than {a}" if several else ""
    if outcome == "identical":
        return f"no difference: the detections of {b} are those of {a} on all {n_images:,} images"
    if outcome == "too few to tell":
        if row.too_few == "no truth":
            return f"{b} cannot be told from {a}: there is no truth that counts"
        why = row.too_few if row.too_few.startswith("the detections") else f"the score rests on {row.images} images"
        return f"too few to tell {b} from {a}: {why}, and at least {FEWEST_IMAGES} are needed"
    if outcome in ("better", "worse"):
        return (
            f"{b} is {outcome}{than} by {points(abs(row.value), signed=False)} {row.name} ({_within(row, level)}) {on}"
        )
    corrected = p is not None and row.p is not None and row.p < 1 - level <= p
    after = " after Holm's correction for the number of arms" if corrected else ""
    found = f"{b} minus {a} is {points(row.value)} {row.name} ({_within(row, level, as_found=True)}) {on}"
    need = _needed(see, images_needed, seeds_needed, seeds)
    return f"not distinguishable{after}: {found}{'; ' if need else ''}{need}"


def said_smallest(row: Difference, level: float) -> str:
    """What this set could have shown: "a true difference of 1.4 mAP50-95 would be found in 80 of 100 such sets"."""
    if not row.smallest:
        return ""
    sure = f"at p below {1 - level:.2g}"
    return (
        f"the smallest difference this set could have shown: {points(row.smallest, signed=False)} {row.name} "
        f"(found in 80 of 100 such sets, {sure})"
    )


def points(value: float, signed: bool = True) -> str:
    """A score or difference in points of 100 with one digit, two below a tenth; the minus is a real one."""
    if math.isnan(value):
        return "–"
    scaled = value * POINTS
    if abs(scaled) < _SHOWN:
        return "0.0"
    return f"{scaled:{'+' if signed else ''}.{1 if abs(scaled) >= 0.095 else 2}f}".replace("-", "−")


def _within(row: Difference, level: float, as_found: bool = False) -> str:
    if row.interval is None:
        return "no interval"
    low, high = row.interval
    if row.value < 0 and not as_found:
        low, high = -high, -low
    ends = [points(end, signed=as_found).replace("+", "") for end in (low, high)]
    return f"{100 * level:g} % {ends[0]} to {ends[1]}"


def _on(n_images: int, seeds: tuple[int, int]) -> str:
    text = f"on {n_images:,} images"
    if max(seeds) > 1:
        text += f", {seeds[0]} and {seeds[1]} seeds"
    return text


def _needed(see: float, images: int | None, seeds: int | None, kept: tuple[int, int]) -> str:
    if math.isnan(see) or see * POINTS < _SHOWN:
        return ""
    wanted = points(see, signed=False)
    if images is not None and images <= 10_000_000:
        return f"to see {wanted} you need about {rounded(images)} images" + _or_seeds(seeds, kept)
    if seeds is not None:
        return f"no number of images would show {wanted}: you need about {seeds} seeds per arm"
    if max(kept) > 1:
        return f"to see {wanted} you need more images and more seeds"
    return f"{wanted} is too small a difference to see with any set"


def _or_seeds(seeds: int | None, kept: tuple[int, int]) -> str:
    return f", or about {seeds} seeds per arm" if seeds is not None and seeds > min(kept) > 1 else ""


def rounded(n: int) -> str:
    """A number of images as it is said: two digits count."""
    step = 10 ** max(len(str(n)) - 2, 0)
    return f"{-(-n // step) * step:,}"
