"""Which freezing is best? The variants of studies/freezing.yaml on a data set, compared with verdicts.

    python benchmarks/freezing.py DATA [--variants none,backbone,all-but-heads] [--seeds 3] [--epochs 20]
                                  [--runs runs/freezing] [--study studies/freezing.yaml] [--json FILE] [--markdown FILE]
                                  [KEY=VALUE …]

The runs are those of the study's base recipe, but YOLOv3-tiny from COCO's weights in batches of 8; KEY=VALUE changes
that for all of them. Each variant has the same images, epochs and seeds. What is done already in --runs is taken up or
left as it is, so that the command may be interrupted and repeated, and seeds added. Every variant is compared with the
study's reference by `onestage compare`; the table is that of the study's diary: best mAP in per cent and the epoch it
came from, its 95 % interval over the validation images (means over the seeds), the difference with its interval, and
what the diary had, on other data.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

import yaml

from onestage.analysis.comparing import Comparison, Pair, compare
from onestage.errors import OnestageError, UsageError, did_you_mean
from onestage.experiments.run import Run
from onestage.training.fit import fit, resume
from onestage.training.recipe.keys import flat, parse_assignments, read_recipe
from onestage.training.watcher import Watcher

ROOT = Path(__file__).resolve().parents[1]
# What differs from the study's base for everyone, so that two cores do it in minutes.
SMALL = {
    "model": "yolov3-tiny",
    "weights": "yolov3-tiny-coco",
    "batch": 8,
    "accumulate": 1,
    "workers": 0,
    "cache": True,
}
ASKED = ("none", "backbone", "all-but-heads")


@dataclass
class Variant:
    """One row of the study: its keys, and the runs made by them, a run for each seed."""

    name: str
    id: str
    purpose: str
    keys: dict[str, Any]
    after: str | None = None
    runs: list[Run] = field(default_factory=list)

    def score(self, protocol: str, name: str) -> tuple[float, float, float]:
        """Its score and the ends of its interval, means over the seeds, in per cent."""
        rows = [_row(run, protocol, name) for run in self.runs]
        ends = [row.get("interval") or (float("nan"),) * 2 for row in rows]
        return tuple(100 * fmean(v) for v in ([row["value"] for row in rows], *zip(*ends, strict=True)))  # type: ignore[return-value]

    def epochs(self) -> int:
        """How many epochs each run has."""
        return int(self.runs[0].recipe["epochs"])

    def best_epochs(self) -> list[int]:
        """The epoch of the best weights of each seed."""
        return [int(run.info["best"]["epoch"]) for run in self.runs]

    def loss(self) -> float:
        """The mean loss of the last epoch's steps, over the seeds."""
        last = [[row["loss"] for row in run.steps if row["epoch"] == run.steps[-1]["epoch"]] for run in self.runs]
        return fmean(fmean(losses) for losses in last)

    def learning(self) -> int:
        """How many numbers of the network learn, in the last stage."""
        return sum(row["parameters"] for row in self.runs[0].info["groups"][-1]["groups"] if row["trainable"])

    def minutes(self) -> float:
        """How long the steps of one run took."""
        return fmean(run.info["seconds"]["train"] + run.info["seconds"]["data"] for run in self.runs) / 60


def main(words: Sequence[str] | None = None) -> int:
    """Train what is not trained yet, compare, print the table; 2 for what cannot be asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--study", type=Path, default=ROOT / "studies" / "freezing.yaml")
    parser.add_argument("--variants", default=",".join(ASKED))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("runs/freezing"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    asked = parser.parse_intermixed_args(words)
    try:
        study = yaml.safe_load(asked.study.read_text(encoding="utf-8"))
        variants = planned(study, asked.variants.split(","), asked.data, asked.epochs, parse_assignments(asked.changes))
        for seed in range(asked.seeds):
            for variant in variants:
                variant.runs.append(_done(variant, variants, seed, asked.runs))
        compared = _compared(variants, study)
    except OnestageError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    table = as_markdown(study, variants, compared)
    print(table)
    if asked.markdown:
        asked.markdown.write_text(table + "\n", encoding="utf-8")
    if asked.json:
        asked.json.write_text(json.dumps(as_json(study, variants, compared), indent=2) + "\n", encoding="utf-8")
    return 0


def planned(
    study: Mapping[str, Any], names: Sequence[str], data: str, epochs: int, changes: Mapping[str, Any]
) -> list[Variant]:  # fmt: skip
    """The variants of those names with all their keys, the study's reference first, as long as `epochs` each."""
    known = study["variants"]
    unknown = [f"{name!r}{did_you_mean(name, known)}" for name in names if name not in known]
    if unknown:
        raise UsageError("the study has no such variants", problems=unknown, hint=", ".join(known))
    base = read_recipe(ROOT / study["base"])
    if "options.loss" in changes or "options" in changes:  # the base weighs the parts of its own loss
        base = {key: value for key, value in base.items() if key != "loss"}
    names = list(dict.fromkeys([study["reference"], *names]))
    made = []
    for name in names:
        own = flat(known[name]["set"])
        keys = {**base, **SMALL, **changes, **own, "data": data, "epochs": epochs}
        if "stages" in own:
            keys["stages"] = _stretched(own["stages"], epochs)
        made.append(Variant(name, known[name]["id"], known[name]["purpose"], keys, known[name].get("after")))
    if late := [one.name for one in made if one.after not in (None, *names)]:
        raise UsageError(f"{', '.join(late)} begins with the weights of another variant, which must be asked for too")
    return sorted(made, key=lambda one: one.after is not None)


def _stretched(stages: Sequence[Mapping[str, Any]], epochs: int) -> list[dict[str, Any]]:
    """The stages with their shares of `epochs`."""
    whole = sum(stage["epochs"] for stage in stages)
    ends = [round(epochs * sum(stage["epochs"] for stage in stages[: i + 1]) / whole) for i in range(len(stages))]
    starts = [0, *ends[:-1]]
    return [{**stage, "epochs": max(end - start, 1)} for stage, start, end in zip(stages, starts, ends, strict=True)]


def _done(variant: Variant, variants: Sequence[Variant], seed: int, root: Path) -> Run:
    """The finished run of a variant with this seed: as it lies there, taken up, or trained now."""
    name = f"{variant.name}-seed{seed}"
    keys = {**variant.keys, "seed": seed, "name": name}
    if variant.after is not None:
        first = next(one for one in variants if one.name == variant.after).runs[seed]
        keys["weights"] = str(first.weights_dir / "best.safetensors")
    if (root / name / "run.json").is_file():
        run = Run.open(name, root)
        if run.asked != keys:
            raise UsageError(f"{run.folder} was made with other keys", hint="another --runs, or remove it")
        if run.info["status"] != "finished":
            run = resume(run, watcher=_Lines(name))
    else:
        run = fit(keys, root=root, watcher=_Lines(name))
    gc.collect()  # the decoded images of the run
    return run


class _Lines(Watcher):
    """A line for each evaluation."""

    def __init__(self, name: str) -> None:
        self.name = name

    def evaluated(self, row: Mapping[str, Any], best: bool) -> None:
        mark = " *" if best else ""
        print(f"{self.name}: epoch {row['epoch']}, mAP50 {100 * row['metrics/mAP50']:.1f}{mark}", flush=True)


def _compared(variants: Sequence[Variant], study: Mapping[str, Any]) -> Comparison | None:
    if len(variants) < 2:
        return None
    return compare(
        *([run.folder for run in one.runs] for one in variants), names=[one.name for one in variants],
        protocol=study["score"]["protocol"], score=study["score"]["name"],
    )  # fmt: skip


def as_markdown(study: Mapping[str, Any], variants: Sequence[Variant], compared: Comparison | None) -> str:
    """The diary's table, its verdicts, and what they rest on."""
    pairs = {pair.b: pair for pair in compared.pairs} if compared is not None else {}
    rows = [_cells(study, one, pairs.get(one.name)) for one in sorted(variants, key=lambda one: one.id)]
    head = ("ID", "Name", "Epochs", "Learns", "Minutes", "Loss", "Best mAP/epoch", "95 %", "Difference", "Purpose",
            "Analysis", "Diary")  # fmt: skip
    lines = ["| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows)]
    if compared is not None:
        seeds = len(variants[0].runs)
        score = study["score"]
        lines += [
            "", f"{score['name']} in per cent by {score['protocol']}, {compared.n_truths} objects in "
            f"{compared.n_images} validation images, {seeds} seed{'s' * (seeds != 1)} each; differences from "
            f"{variants[0].name}, with 95 % intervals over images and seeds. Losses do not rank the rows: what learns "
            "differs.", "",
            *(f"- {pair.verdict}" for pair in compared.pairs), *(f"- {note}" for note in compared.notes),
        ]  # fmt: skip
        lines += [f"- {pair.b}: {pair.smallest}" for pair in compared.pairs if pair.smallest]
    return "\n".join(lines)


def _cells(study: Mapping[str, Any], one: Variant, pair: Pair | None) -> tuple[str, ...]:
    value, low, high = one.score(study["score"]["protocol"], study["score"]["name"])
    epochs, said = one.best_epochs(), study["variants"][one.name].get("said")
    return (
        one.id, one.name, str(one.epochs()), f"{one.learning():,}", f"{one.minutes():.1f}",
        f"{one.loss():.3g}", f"{value:.1f}/{median(epochs):g}", f"{low:.1f} to {high:.1f}", _difference(pair),
        one.purpose, "the reference" if pair is None else pair.outcome,
        f"{said['score']:g}/{said['at']}" if said else "–",
    )  # fmt: skip


def _difference(pair: Pair | None) -> str:
    if pair is None:
        return "–"
    head = pair.headline
    within = f" ({100 * head.interval[0]:+.1f} to {100 * head.interval[1]:+.1f})" if head.interval else ""
    return f"{100 * head.value:+.1f}{within}"


def as_json(study: Mapping[str, Any], variants: Sequence[Variant], compared: Comparison | None) -> dict[str, Any]:
    """All numbers of the table, and the comparison whole."""
    score = study["score"]
    return {
        "study": study["name"], "reference": variants[0].name, "score": score,
        "variants": [
            {"id": one.id, "name": one.name, "purpose": one.purpose, "keys": one.keys, "epochs": one.epochs(),
             "learns": one.learning(), "minutes": one.minutes(), "loss": one.loss(),
             "best": dict(zip(("value", "low", "high"), one.score(score["protocol"], score["name"]), strict=True)),
             "runs": [{"name": run.name, "seed": run.info["seed"], "epoch": epoch,
                       "value": _row(run, score["protocol"], score["name"])["value"]}
                      for run, epoch in zip(one.runs, one.best_epochs(), strict=True)]}
            for one in variants
        ],
        "comparison": None if compared is None else compared.as_dict(),
    }  # fmt: skip


def _row(run: Run, protocol: str, name: str) -> dict[str, Any]:
    """The row of metrics.json over all classes."""
    return next(
        row for row in run.metrics["rows"]
        if (row["protocol"], row["name"], row.get("class")) == (protocol, name, None)
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
