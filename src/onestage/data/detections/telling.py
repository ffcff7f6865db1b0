"""What is told of detections besides their rows: what was read, who is silent, which files lie beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onestage.data.dataset import Dataset
from onestage.data.detections.faults import Faults
from onestage.data.detections.rows import Rows
from onestage.data.formats.files import files_under, leads_out, shown
from onestage.records import Detections, FloatArray, ImageId, IntArray


def tell_of_silence(meant: Sequence[Sequence[int]], label: IntArray, dataset: Dataset, faults: Faults) -> None:
    """List that there are images of which no file speaks, and classes with truths but without a detection."""
    if len(label) and dataset.images:
        there = np.unique(np.concatenate([dataset.annotations[image.id].labels for image in dataset.images]))
        missed = [dataset.classes[i] for i in np.setdiff1d(there, label).tolist()]
        if missed:
            said = f"{len(missed)} of {len(there)} classes have no detection: {', '.join(missed[:8])}"
            faults.tell("silent-classes", said + " …" * (len(missed) > 8), count=len(missed))
    named = {found[0] for found in meant if len(found) == 1}
    silent = [image.id for i, image in enumerate(dataset.images) if i not in named]
    if silent:
        said = f"{len(silent)} of {len(dataset)} images are named nowhere, first {silent[0]!r}"
        faults.tell("silent-images", said, count=len(silent))


def tell_of_files(path: Path, rows: Rows, faults: Faults) -> None:
    """List files of other kinds that lie beside those that were read."""
    if not path.is_dir():
        return
    read = {Path(name).suffix.lower() for name in rows.files}
    for file in files_under(path, {".txt", ".json", ".csv", ".tsv"}):
        if leads_out(file, (path,)):
            faults.tell("file-passed-over", "a link that leads out of the folder", shown(file, path))
            continue
        if file.suffix.lower() in read:
            continue
        said = f"a {file.suffix} file beside {', '.join(sorted(read))}"
        faults.tell("file-passed-over", said, shown(file, path))


def described(
    name: str, total: int, scores: FloatArray, detections: Mapping[ImageId, Detections], dataset: Dataset
) -> str:
    """What was read, in one sentence."""
    within = f", scores {scores.min():.4g} to {scores.max():.4g}" if len(scores) else ""
    left = f" ({total - len(scores)} more left out)" if len(scores) < total else ""
    empty = len(dataset) - len(detections)
    return (
        f"{name}: {_many(len(scores), 'detection')}{left} in {_many(len(detections), 'image')}{within}; "
        f"{empty} of {len(dataset)} images have none"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
