"""`onestage compare`: is B really better than A?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onestage.cli.verb import Json, verb

if TYPE_CHECKING:
    from onestage.analysis.comparing import Comparison

EXAMPLES = (
    ("compare base-001 new-001", "two runs, on the images both were judged on"),
    ("compare base-001,base-002,base-003 new-001,new-002,new-003", "two recipes, three seeds each"),
    ("compare a.json b.json data=instances_val.json", "detection files of any detector; neither torch nor images"),
    ("compare old-001 new-001 new-002 score=mAP50", "each beside the first"),
    ("compare base-001 new-001 --gate not-worse", "for CI: exit code 6 where the new one is worse"),
)
KEYS = (
    ("data", "the runs' own", "truth for detection files: a dataset folder or file, or the name of a sample"),
    ("split", "val", "train, val, test, a set's own name, or all; a COCO file of one set is taken whole"),
    ("protocol", "the runs', or coco", "the rule of judging: coco, voc07, voc10, darknet, … (as for val)"),
    ("score", "the protocol's", "the score that the verdict is about: mAP50-95, mAP50, APs, AR100, …"),
    ("names", "by their files", "what the arms are called: names=[base,new]"),
    ("see", "the one found", "a difference in points of 100, for which the number of images is told: see=0.5"),
    ("floor", "the arms' own", "score floor: cut all there, and take files as not cut above it"),
    ("resamples", "1000", "how often the images are drawn anew"),
    ("seed", "0", "of these draws"),
    ("level", "95", "of the intervals, in per cent"),
    ("categories", "automatic", "class numbers of files: coco (the truth's ids), labels (from 1), indices (from 0)"),
    ("format", "by content", "of detection files: coco, comp4, yolo, csv, … (as for val)"),
    ("classes", "the data's own", "class names in order, where the data does not say them"),
    ("allow_loss", "false", "leave out rows of detection files that cannot be judged, and note them"),
)  # fmt: skip
GATES = ("better", "not-worse")

Words = Annotated[list[str] | None, typer.Argument(metavar="A[,A2,…] B[,B2,…] … [key=value …]", show_default=False)]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write all differences here, as JSON.")]
Common = Annotated[bool, typer.Option("--common", help="Compare what the arms share, and say what was left out.")]
Gate = Annotated[
    str | None,
    typer.Option("--gate", metavar="WHICH", help="Exit with 6 unless B is `better`, or where B is worse: `not-worse`."),
]


@verb(EXAMPLES, KEYS)
def compare(
    words: Words = None, common: Common = False, gate: Gate = None, out: Out = None, as_json: Json = False
) -> None:
    """Say whether B is really better than A, with the interval of the difference."""
    from onestage.analysis.comparing import compare as compared
    from onestage.cli.differences import show_comparison
    from onestage.cli.terminal import Terminal
    from onestage.cli.words import known_only, split_words
    from onestage.experiments.storage import as_json as json_text
    from onestage.experiments.storage import make_room, write_bytes

    places, keys = split_words(words)
    if "common" in keys:
        common = keys.pop("common") is True or common
    gate = keys.pop("gate", gate)
    known_only("compare", keys, [*(key for key, _, _ in KEYS), "common", "gate"])
    options = _options(keys, gate)
    if out is not None:
        make_room(out, "--out")
    terminal = Terminal(as_json)
    with terminal.steps() as progress:
        found = compared(*places, common=common, progress=progress, **options)
    show_comparison(terminal, found)
    if out is not None:
        write_bytes(out, json_text(found.as_dict()).encode())
        terminal.say(f"all differences: {out}")
    terminal.result(found.as_dict())
    if gate is not None:
        _pass(found, gate)


def _options(keys: Mapping[str, Any], gate: Any) -> dict[str, Any]:
    """The keys as `onestage.compare` takes them; UsageError that names every value that cannot be used."""
    from onestage.analysis.judging import CATEGORIES
    from onestage.cli.words import is_number, listed
    from onestage.errors import UsageError, did_you_mean

    problems = []
    ranges = {"floor": (0, 1), "see": (0, 100), "level": (50, 99.99)}
    for key, value in keys.items():
        if key in ranges and not is_number(value, *ranges[key]):
            problems.append(f"{key}: expected a number from {ranges[key][0]} to {ranges[key][1]}, got {value!r}")
        elif key in ("resamples", "seed") and not (isinstance(value, int) and is_number(value, 0, 10**7)):
            problems.append(f"{key}: expected a whole number, got {value!r}")
        elif key in ("data", "split", "protocol", "score", "format") and not isinstance(value, str):
            problems.append(f"{key}: expected one word, got {value!r}")
        elif key == "categories" and value not in CATEGORIES:
            problems.append(f"categories: expected {' or '.join(CATEGORIES)}, got {value!r}")
        elif key == "allow_loss" and value not in (True, False):
            problems.append(f"allow_loss: expected true or false, got {value!r}")
    if gate is not None and gate not in GATES:
        problems.append(f"gate: expected {' or '.join(GATES)}, got {gate!r}{did_you_mean(str(gate), GATES)}")
    if problems:
        raise UsageError("compare: values that cannot be used", problems=problems)
    options = dict(keys)
    for key in ("level", "see"):
        if key in options:
            options[key] /= 100
    for key in ("names", "classes"):
        if key in options:
            options[key] = listed(options[key])
    return options


def _pass(found: Comparison, gate: str) -> None:
    """GateError for every arm that does not pass."""
    from onestage.errors import GateError

    if gate == "better":
        failed = [pair for pair in found.pairs if pair.outcome != "better"]
    else:
        failed = [pair for pair in found.pairs if pair.outcome in ("worse", "too few to tell")]
    if failed:
        raise GateError(f"gate {gate!r} is not passed", problems=[pair.verdict for pair in failed])
