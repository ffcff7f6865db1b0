"""A comparison on the terminal: the verdict, what was compared, scores beside each other, classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onestage.analysis.verdicts import points

if TYPE_CHECKING:
    from onestage.analysis.comparing import Comparison, Pair
    from onestage.cli.terminal import Terminal
    from onestage.evaluation.comparison import Difference

MOST_CLASSES = 40
STYLES = {"better": "bold green", "worse": "bold red"}


def show_comparison(terminal: Terminal, found: Comparison) -> None:
    """Print the verdicts, then the facts and tables they rest on."""
    for pair in found.pairs:
        terminal.say(pair.verdict, style=STYLES.get(pair.outcome, "bold"))
        if pair.smallest:
            terminal.say(pair.smallest)
    terminal.say()
    terminal.facts(_facts(found))
    for pair in found.pairs:
        if pair.outcome == "identical":
            continue
        terminal.say()
        _tables(terminal, found, pair)
    for left in found.left_out:
        terminal.say(f"left out or not alike: {left}", style="yellow")
    for note in found.notes:
        terminal.say(f"note: {note}", style="yellow")


def _facts(found: Comparison) -> list[tuple[str, str]]:
    floor = "not known" if found.floor is None else f"{found.floor:g}"
    arms = [(name, ", ".join(seeds) if seeds != (name,) else "one seed") for name, seeds in found.seeds.items()]
    return [
        *((name, of) for name, of in arms),
        ("judged", f"{found.n_images:,} images, {found.n_truths:,} truths, protocol {found.protocol}, floor {floor}"),
        ("method", f"{found.resamples:,} paired resamples of the images, seed {found.seed}; points of 100"),
    ]


def _tables(terminal: Terminal, found: Comparison, pair: Pair) -> None:
    level = f"{100 * found.level:g} % interval"
    terminal.table(
        ("score", pair.a, pair.b, "difference", level, "p"),
        [(row.name, *_numbers(row)) for row in pair.overall() if row.too_few != "no truth"],
    )
    rows = [row for row in pair.per_class() if row.too_few != "no truth"]
    if len(rows) < 2:
        return
    terminal.say()
    terminal.table(
        (f"class, {rows[0].name}", "truths", "images", pair.a, pair.b, "difference", level, "p", "Holm", ""),
        [(str(row.class_name), f"{row.n:,}", f"{row.images:,}", *_numbers(row), probability(row.holm),
          _mark(row, found.level)) for row in rows[:MOST_CLASSES]],
    )  # fmt: skip
    if len(rows) > MOST_CLASSES:
        terminal.say(f"… and {len(rows) - MOST_CLASSES} more classes; --json and --out give all")
    terminal.say(
        f"** p below {1 - found.level:.2g} by Holm (no false find among all classes), * by Benjamini and Hochberg "
        "(a small share of false finds)"
    )


def _numbers(row: Difference) -> tuple[str, str, str, str, str]:
    interval = "too few images" if row.interval is None else f"{points(row.interval[0])} to {points(row.interval[1])}"
    return (
        points(row.a, signed=False), points(row.b, signed=False), points(row.value), interval, probability(row.p),
    )  # fmt: skip


def _mark(row: Difference, level: float) -> str:
    strict = row.holm is not None and row.holm < 1 - level
    loose = row.bh is not None and row.bh < 1 - level
    return "**" if strict else "*" if loose else ""


def probability(p: float | None) -> str:
    """A p-value as tables have it: three digits, never 0; a dash where there is none."""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"
