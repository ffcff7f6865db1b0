"""One set of a dataset, to be judged on: val unless another is named, or everything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onestage.data import samples
from onestage.data.dataset import Dataset
from onestage.data.formats import READERS, recognise
from onestage.data.formats.splits import role
from onestage.data.locate import existing, nothing_here
from onestage.data.opening import LOSS_LIMIT, open_dataset, refuse_losses
from onestage.data.spec import read_spec
from onestage.errors import DataError, did_you_mean

ROLES = ("train", "val", "test")
# Formats whose file or folder of a single set is judged whole, where others have a part split off.
WHOLE = ("coco", "widerface", "visdrone", "fddb", "facelist")


def open_set(
    data: str | Path, split: str | None = None, *, classes: Sequence[str] | None = None, seed: int = 0,
    allow_loss: bool = False, images: bool = True,
) -> Dataset:  # fmt: skip
    """The set `split` of a dataset (or of the sample of that name): a role (train, val, test), a set's own name, "all".

    Without `split` it is val as training would take it: a set the folder names, else the part that `seed` splits off;
    a file or folder of a format in `WHOLE` with a single set gives that set whole. `images=False` is for judging
    detections: boxes stay as written, sizes are as the file says (0 x 0 where it does not), and only YOLO, which
    writes shares, needs the images; a folder without sets is then taken whole. Raises DataError for an unknown split,
    and without `allow_loss` where more than `LOSS_LIMIT` of the boxes or images cannot be used.
    """
    path = existing(Path(samples.get(str(data)) if str(data) in samples.SAMPLES else data).expanduser())
    found = recognise(path) if read_spec(path) is None else []
    if found and (not images or split is None):
        names = READERS[found[0][0]].splits(path)
        by_itself = not images and (names or split in (None, "all"))
        if by_itself or (len(names) == 1 and found[0][0] in WHOLE):
            dataset = READERS[found[0][0]].read(path, _set_name(names, split), classes, probe_images=images)
            return _sound(dataset, allow_loss)
    if split in (None, *ROLES):
        opened = open_dataset(path, classes=classes, seed=seed, allow_loss=allow_loss)
        chosen = {"train": opened.train, "val": opened.val, "test": opened.test}[split or "val"]
        if chosen is None:
            raise DataError(f"{path} has no set {split!r} beside train and val", hint="split=val, or split=all")
        return chosen
    if not found:
        raise nothing_here(path) if read_spec(path) is None else DataError(f"split={split}: {path} names {ROLES}")
    reader = READERS[found[0][0]]
    names = reader.splits(path)
    if split != "all" and split not in names:
        there = [*names, "all"]
        raise DataError(f"no set {split!r}{did_you_mean(str(split), there)}; there are: {', '.join(there)}")
    return _sound(reader.read(path, None if split == "all" else split, classes), allow_loss)


def _sound(dataset: Dataset, allow_loss: bool) -> Dataset:
    """The dataset; DataError where more of it cannot be used than may be lost."""
    if not allow_loss:
        refuse_losses(dataset, LOSS_LIMIT)
    return dataset


def sets_of(data: Path) -> list[str]:
    """The names of the sets that a dataset's own files tell apart; [] where it has none, or is a split spec."""
    found = recognise(data) if data.exists() and read_spec(data) is None else []
    return READERS[found[0][0]].splits(data) if found else []


def _set_name(names: Sequence[str], split: str | None) -> str | None:
    """The set among `names` that `split` means: itself, by its role, or the one meant to be judged on; None: all."""
    if split == "all" or not names:
        return None
    roles: dict[str | None, str] = {role(name): name for name in reversed(names)}
    if split is None:
        return names[0] if len(names) == 1 else roles.get("val") or roles.get("test") or names[0]
    return split if split in names else roles.get(split, split)
