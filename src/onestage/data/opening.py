"""Opens a dataset by its path: recognises the format, finds train and val, refuses heavy losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onestage.data.dataset import Dataset
from onestage.data.formats import READERS, recognise
from onestage.data.formats.files import printable
from onestage.data.formats.listing import finding_of, in_words
from onestage.data.formats.merge import merged, unique
from onestage.data.formats.splits import role
from onestage.data.locate import existing, nothing_here
from onestage.data.mixture import read_sets
from onestage.data.order import in_words as order_in_words
from onestage.data.spec import read_spec
from onestage.data.split import divided, leaks, videos_of
from onestage.errors import DataError, UsageError, did_you_mean
from onestage.records import Finding

LOSS_LIMIT = 0.05


@dataclass(frozen=True)
class Opened:
    """A dataset ready for training: its sets, what it was taken for in one sentence, how a split was made, findings.

    `findings` hold those of all sets once each. `split_made` is None where the folder itself names validation.
    `test` is a third set where the folder names one that is not used as validation.
    """

    train: Dataset
    val: Dataset
    test: Dataset | None
    classes: tuple[str, ...]
    format: str
    described: str
    split_made: str | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Sets:
    """What was read before it is decided what is train and what is val; `notes` go into the description.

    `sources` are the sets one by one where several were put together.
    """

    sets: dict[str, Dataset]
    why: str
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    sources: tuple[Dataset, ...] = ()


def open_dataset(
    data: str | Path, *, classes: Sequence[str] | None = None, seed: int = 0, val_fraction: float = 0.2,
    allow_loss: bool | float = False,
) -> Opened:  # fmt: skip
    """Opens the dataset at a path: a folder, a data.yaml or .data, a COCO JSON, or a YAML that names train and val.

    Sets that the folder names are used. VOC's lists are used as in the VOC2007 challenge: train on trainval (or train
    and val together), judge on test, where test is annotated. Where one set is given, or train and val are the same
    images, a stratified split is made with `seed`, `val_fraction` of the images for validation. `classes` fixes names
    and order of the classes. More than 5 % of boxes or images lost while reading stops with DataError, unless
    `allow_loss` (True, or the share that is allowed); so do a missing path, an empty folder, an unknown format, and a
    set in which no box counts.
    """
    if isinstance(classes, str):
        raise UsageError(f"classes: expected a list of names, got the text {classes!r}", hint=f"classes=[{classes}]")
    if not 0 < val_fraction < 1:
        raise DataError(f"val_fraction: expected a share between 0 and 1, got {val_fraction}")
    try:
        path = existing(Path(data).expanduser())
        return _open(path, classes, seed, val_fraction, allow_loss)
    except OSError as error:
        raise DataError(f"{printable(str(error.filename or data))} cannot be read: {error.strerror}") from error


def _open(
    path: Path, classes: Sequence[str] | None, seed: int, val_fraction: float, allow_loss: bool | float
) -> Opened:
    spec = read_spec(path)
    if spec is None:
        read = _read_folder(path, classes)
    else:
        found = read_sets(spec, classes)
        read = _Sets(found.sets, found.why, (), found.findings, found.sources)
    limit = LOSS_LIMIT if allow_loss is False else 1.0 if allow_loss is True else float(allow_loss)
    for dataset in read.sources or read.sets.values():
        refuse_losses(dataset, limit)
    train, val, test, made, findings = _train_and_val(read, seed, val_fraction)
    for dataset in (train, val):
        if not any((~dataset.annotations[image.id].ignore).any() for image in dataset.images):
            ignored = f": all {dataset.boxes} that it has are to be ignored" if dataset.boxes else ""
            raise DataError(
                f"{_name(path)}: none of the {len(dataset)} images of {dataset.split} has a usable box{ignored}",
                problems=[in_words(finding) for finding in dataset.findings[:10]],
                hint="name other images for it, or correct their annotations",
            )
    if (leak := leaks(train, val)) is not None:
        findings.append(leak)
    held = [dataset for dataset in (train, val, test) if dataset is not None]
    findings += _unused_classes(train) if classes is not None else []
    every = unique([*read.findings, *findings, *(found for dataset in held for found in dataset.findings)])
    counts = ", ".join(
        f"{name} {len(dataset)} images with {dataset.boxes} boxes"
        for name, dataset in (("train", train), ("val", val), ("test", test)) if dataset is not None
    )  # fmt: skip
    notes = [f"{made}"] if made else list(read.notes)
    if mixture := order_in_words(train):
        notes.append(mixture)
    classes_said = f"{len(train.classes)} class{'es' * (len(train.classes) != 1)}: {_some(train.classes)}"
    described = "; ".join([read.why, counts, *notes, classes_said])
    return Opened(train, val, test, train.classes, train.format, described, made, tuple(every))


def _read_folder(path: Path, classes: Sequence[str] | None) -> _Sets:
    found = recognise(path)
    if not found:
        raise nothing_here(path)
    name, why = found[0]
    reader = READERS[name]
    findings = [finding_of("several-formats", f"also looks like: {other}") for _, other in found[1:]]
    names = reader.splits(path)
    roles: dict[str, str] = {str(role(split)): split for split in reversed(names) if role(split)}
    notes: list[str] = []
    if "trainval" in roles or (name == "voc" and "test" in roles and ("train" in roles or "val" in roles)):
        return _challenge(path, name, why, roles, classes, findings)
    if "train" not in roles:
        everything = reader.read_splits(path, [None], classes)[0]
        _check_names(classes, everything, path)
        return _Sets({"train": everything}, why, (), tuple(findings))
    if "val" not in roles and "test" in roles:
        roles = {"train": roles["train"], "val": roles["test"]}
        notes.append(f"{roles['val']} is used for validation, for there is no other")
    wanted: list[str] = [key for key in ("train", "val", "test") if key in roles]
    read = reader.read_splits(path, [roles[key] for key in wanted], classes)
    sets = dict(zip(wanted, read, strict=True))
    _check_names(classes, sets["train"], path)
    if "test" in sets and not sets["test"].boxes:
        notes.append(f"{roles['test']} has no annotations and is not used")
        del sets["test"]
    return _Sets(sets, why, tuple(notes), tuple(findings))


def _challenge(
    path: Path, name: str, why: str, roles: dict[str, str], classes: Sequence[str] | None, findings: list[Finding]
) -> _Sets:  # fmt: skip
    """Lists as the VOC challenge uses them: train on trainval, judge on test; train and val where test has no truth."""
    keys = [key for key in ("train", "val", "trainval", "test") if key in roles]
    sets = dict(zip(keys, READERS[name].read_splits(path, [roles[key] for key in keys], classes), strict=True))
    test = sets.get("test")
    if test is not None and test.boxes and len(test) >= test.images_read / 2:
        both = sets.get("trainval") or merged([sets[key] for key in ("train", "val") if key in sets], "trainval")
        source = roles.get("trainval") or " and ".join(roles[key] for key in ("train", "val") if key in roles)
        how = (f"as in the VOC challenge train is the list {source} and val the list {roles['test']}",)
        return _Sets({"train": both, "val": test}, why, how, tuple(findings))
    notes: tuple[str, ...] = ("the list test has no annotations and is not used",) if test is not None else ()
    if "train" in sets and "val" in sets:
        return _Sets({"train": sets["train"], "val": sets["val"]}, why, notes, tuple(findings))
    only = sets.get("trainval") or sets.get("train") or sets["val"]
    return _Sets({"train": only}, why, notes, tuple(findings))


def _train_and_val(
    read: _Sets, seed: int, fraction: float
) -> tuple[Dataset, Dataset, Dataset | None, str | None, list[Finding]]:  # fmt: skip
    train, val = read.sets["train"], read.sets.get("val")
    findings: list[Finding] = []
    if not len(train):
        raise DataError(
            f"{_name(train.root)}: no usable image for training",
            problems=[in_words(finding) for finding in train.findings[:10]],
        )
    made = None
    if val is not None and {image.path for image in val.images} == {image.path for image in train.images}:
        findings.append(finding_of("train-is-val", f"train and val name the same {len(train)} images"))
        val = None
    if val is None or not len(val):
        why = "train and val are the same images" if findings else "one set is given"
        train, val = divided(train, fraction, seed)
        videos = videos_of(train), videos_of(val)
        by = f", {videos[1]} of {sum(videos)} videos" if any(videos) else ""
        made = (
            f"{why}: a stratified split was made with seed {seed}, {len(val)} of {len(train) + len(val)} images"
            f"{by} for val"
        )
    return train, val, read.sets.get("test"), made, findings


def refuse_losses(dataset: Dataset, limit: float) -> None:
    """DataError with the first findings where more than the share `limit` of boxes or images cannot be used."""
    repeated = sum(finding.code == "duplicate-box" for finding in dataset.findings)
    boxes = dataset.boxes_read - dataset.boxes - repeated
    images = dataset.images_read - len(dataset)
    if boxes > limit * dataset.boxes_read or images > limit * dataset.images_read:
        listed = [found for found in dataset.findings if found.severity != "note" and found.code != "duplicate-box"]
        more = [f"and {len(listed) - 10} more"] if len(listed) > 10 else []
        raise DataError(
            f"{_name(dataset.root)}, {dataset.split}: {boxes} of {dataset.boxes_read} boxes and {images} of "
            f"{dataset.images_read} images cannot be used: more than the {limit:.0%} that is allowed",
            problems=[*(in_words(finding) for finding in listed[:10]), *more],
            hint="correct the files, or allow the loss with allow_loss=true",
        )


def _check_names(classes: Sequence[str] | None, dataset: Dataset, path: Path) -> None:
    """Refuses a class that the format's own list does not name; VOC has no such list, a face list numbers alone."""
    if classes is None or dataset.format in ("voc", "facelist"):
        return
    own = READERS[dataset.format].read_splits(path, [None])[0].classes
    wrong = [
        f"{name!r} is not among the classes of the data{did_you_mean(name, own)}" for name in classes if name not in own
    ]
    if wrong:
        raise DataError("classes: not in the data's own list", problems=wrong, hint=f"the list is: {_some(own, 40)}")


def _unused_classes(train: Dataset) -> list[Finding]:
    truths = (train.annotations[image.id] for image in train.images)
    used = {int(label) for truth in truths for label in truth.labels[~truth.ignore]}
    idle = [name for label, name in enumerate(train.classes) if label not in used]
    return [finding_of("class-without-boxes", f"class {name!r} has no box in the training images") for name in idle]


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", … ({len(names) - most} more)" if len(names) > most else "")


def _name(path: Path) -> str:
    return printable(path.name) or str(path)
