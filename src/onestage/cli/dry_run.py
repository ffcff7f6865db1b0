"""`onestage train … --dry-run`: what a run would be and take, and its first batch as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onestage.cli.terminal import Terminal
from onestage.errors import UsageError

if TYPE_CHECKING:
    from onestage.experiments.filtered import Filtered
    from onestage.experiments.levels import Level
    from onestage.training.cost.estimate import Estimate
    from onestage.training.cost.footprint import Share
    from onestage.training.first_batch import FirstBatch
    from onestage.training.plan import Plan

# The picture's name where none is given, and the word for no picture.
PICTURE, NO_PICTURE = "dry-run.png", "none"


def show_plan(terminal: Terminal, keys: Mapping[str, Any], picture: str | None) -> None:
    """Print the recipe, what the run would take and what stands in its way; write the picture of its first batch.

    `picture` is a path, PICTURE where None, no picture where NO_PICTURE. Raises UsageError, before anything is done,
    where a file is there that no dry run wrote.
    """
    from onestage.cli.findings import explain_findings
    from onestage.cli.groups import how_many, show_groups
    from onestage.training.recipe import build

    build(keys)  # a misspelt key is told before torch is loaded
    _refuse_many_processes()
    path = None if picture == NO_PICTURE else _picture_path(picture)
    with terminal.waiting("loading torch"):
        from onestage.training.dry_run import dry_run
        from onestage.training.levels import levels_of
    with terminal.steps() as tell:
        found = dry_run(keys, tell)
    plan = found.plan
    _introduce(terminal, plan)
    terminal.say(_recipe_text(plan).rstrip())
    terminal.say()
    terminal.say(
        f"{how_many(plan.steps, 'step')}, {plan.steps_per_epoch} in each of "
        f"{how_many(plan.recipe.epochs or 0, 'epoch')}; nothing was trained"
    )
    terminal.say()
    show_groups(terminal, plan)
    terminal.say()
    show_estimate(terminal, found.estimate)
    if path is not None:
        from onestage.report.batch_sheet import write_batch_sheet

        write_batch_sheet(path, found.first_batch, found.title)
    _show_batch(terminal, found.first_batch, path, plan.filtered, levels_of(plan.detector))
    explain_findings(terminal, found.findings)
    terminal.result({**found.as_dict(), "picture": None if path is None else str(path)})


def _refuse_many_processes() -> None:
    from onestage.training.devices.launch import placed

    place = placed()
    if place is not None and place.count > 1:
        raise UsageError(
            f"--dry-run tries a run in one process; {place.launcher} started {place.count}",
            hint=f"the same command without {place.launcher}",
        )


def _recipe_text(plan: Plan) -> str:
    """The recipe that would run as YAML; a cfg goes by its name there, though the run keeps its text."""
    from onestage.experiments.storage import as_yaml

    recipe = plan.recipe.as_dict()
    return as_yaml({**recipe, "options": {**recipe["options"], "cfg": plan.cfg}} if plan.cfg else recipe)


def _introduce(terminal: Terminal, plan: Plan) -> None:
    from onestage.cli.findings import counted
    from onestage.cli.watcher import choices, weights_notes

    width, height = plan.detector.size
    parameters = sum(p.numel() for p in plan.detector.parameters()) / 1e6
    model = f"{plan.cfg or plan.recipe.model}, {parameters:.1f} M parameters, input {width}x{height}; {plan.report}"
    facts = [("data", plan.opened.described)]
    if plan.opened.findings:
        facts.append(("findings", counted(plan.opened.findings)))
    facts += [("model", model), *weights_notes(plan)]
    terminal.facts([*facts, *(("chosen", words) for words in choices(plan))])
    terminal.say()


def show_estimate(terminal: Terminal, found: Estimate) -> None:
    """Three small tables: time, memory and disk, each by its parts and in all."""
    from onestage.cli.pace import clock
    from onestage.training.cost.footprint import in_bytes

    low, high = found.seconds_range
    rows = [(s.name, _seconds(s.each), _count(s), _seconds(s.total)) for s in found.time if s.total]
    rows.append(("in all", "", "", clock(found.seconds)))
    terminal.table(("time", "each", "times", "total"), rows)
    terminal.say(f"likely from {clock(low)}, with nothing else running, to {clock(high)}, as busy as now", style="dim")
    terminal.say()
    rows = [(s.name, in_bytes(s.each) if s.each else "", _count(s), in_bytes(s.total)) for s in found.memory if s.total]
    rows.append(("in all, at the peak", "", "", in_bytes(found.peak)))
    terminal.table(("memory", "each", "images", "total"), rows)
    free = "" if found.has.free is None else f", {in_bytes(found.has.free)} of it free now"
    terminal.say(f"{found.has.set_by} has {in_bytes(found.has.limit)}{free}", style="dim")
    if found.host:
        told = ", ".join(f"{share.name} {in_bytes(share.total)}" for share in found.host if share.total)
        terminal.say(f"beside it, in the machine's own memory: {told}", style="dim")
    terminal.say()
    terminal.table(
        ("disk", "total"), [*((share.name, in_bytes(share.total)) for share in found.disk),
                            ("in all, at most", in_bytes(found.disk_bytes))],
    )  # fmt: skip
    terminal.say(f"{in_bytes(found.disk_free)} are free", style="dim")
    for note in found.notes:
        terminal.say(f"note: {note}", style="dim")
    terminal.say()


def _seconds(value: float | None) -> str:
    """Seconds of a table: 0.034 s, 2.1 s, 12:05."""
    from onestage.cli.pace import clock

    if value is None:
        return ""
    return clock(value) if value >= 100 else f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _count(share: Share) -> str:
    return "" if share.times is None else f"{share.times:,}"


def _show_batch(
    terminal: Terminal, batch: FirstBatch, path: Path | None, filtered: Filtered | None, known: Sequence[Level]
) -> None:  # fmt: skip
    """What the first batch brings: truths, positives by level, what no prior answers for; what is left out in all."""
    from onestage.boxes.assigned import POOR_FIT
    from onestage.cli.groups import how_many

    rows = batch.rows()
    truths = sum(row["truths"] for row in rows)
    ignored = sum(row["ignored"] for row in rows)
    words = f"{len(rows)} images, {truths} truths after augmentation ({batch.policy})"
    words += f", {ignored} to ignore" if ignored else ""
    facts = [("first batch", words)]
    if batch.assigned is not None:
        levels = [sum(counts) for counts in zip(*(row["positives_per_level"] for row in rows), strict=True)]
        strides = ", ".join(f"{level.stride:g}" for level in known)
        left_out = sum(len(row["unanswered"]) for row in rows)
        told = f"{sum(levels)} priors answer for them, by level (stride {strides}) {', '.join(map(str, levels))}"
        facts.append(("", told + (f"; {how_many(left_out, 'truth')} without one" if left_out else "")))
        if poor := sum(row["poorly_fitted"] for row in rows):
            facts.append(
                ("", f"{how_many(poor, 'truth')} with an IoU below {POOR_FIT} with every prior: too small or too long")
            )
    else:
        facts.append(("", "this model does not say which priors it assigns"))
    if filtered is not None:
        facts.append(("first epoch", str(filtered)))
    if path is not None:
        facts.append(("picture", str(path)))
    terminal.facts(facts)


def _picture_path(asked: str | None) -> Path:
    """Where the picture goes; UsageError where it cannot, or where something else lies."""
    from onestage.experiments.storage import make_room
    from onestage.report.batch_sheet import is_sheet

    path = Path(asked or PICTURE).expanduser()
    if path.suffix.lower() != ".png":
        raise UsageError(f"--picture {path}: expected a name that ends in .png", hint="--picture none writes none")
    if path.is_file() and not is_sheet(path):
        raise UsageError(
            f"--picture {path}: a file of that name is there and no dry run wrote it", hint="--picture OTHER.png"
        )
    make_room(path, "--picture")
    return path
