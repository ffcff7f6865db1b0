"""The colours of all figures and pictures, told apart by colour-blind readers too."""

from __future__ import annotations

# Okabe and Ito, "Color Universal Design" (2008), without black and yellow, and vermilion kept for mistakes.
CLASSES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6BB1", "#A6761D", "#44AA99")
WRONG = "#D62728"
MISSED = "#F0E442"
NEUTRAL = "#808080"


def of_class(label: int) -> str:
    """The colour of a class, "#rrggbb"; colours repeat after eight classes."""
    return CLASSES[label % len(CLASSES)]


def rgb(colour: str) -> tuple[int, int, int]:
    """ "#rrggbb" as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
