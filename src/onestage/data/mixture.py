"""The sets of a split spec read, each of any format, and several put together as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onestage.data.dataset import Dataset, Part
from onestage.data.formats import READERS, recognise
from onestage.data.formats.listing import finding_of
from onestage.data.formats.merge import merged
from onestage.data.formats.splits import role
from onestage.data.locate import nothing_here
from onestage.data.spec import Source, Spec
from onestage.errors import DataError, did_you_mean
from onestage.records import Finding


@dataclass(frozen=True)
class ReadSpec:
    """What a spec named: the set of each role, every source by itself, what they were taken for, what is odd."""

    sets: dict[str, Dataset]
    sources: tuple[Dataset, ...]
    why: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Reader:
    """One source with the format it was taken for, and the set that its split means."""

    source: Source
    format: str
    why: str
    split: str | None

    def read(self, classes: Sequence[str] | None) -> Dataset:
        return thinned(READERS[self.format].read(self.source.path, self.split, classes), self.source.every)


def read_sets(spec: Spec, classes: Sequence[str] | None) -> ReadSpec:
    """The sets of a split spec with one class list for all, joined where a role names several.

    A set named twice counts once, with the sum of its ratios. An image that several sets hold is taken once, from the
    first. Raises DataError for a place that holds no dataset, an unknown split, and class numbers that two face lists
    use for different names.
    """
    findings: list[Finding] = []
    sources = {key: _once(key, several, findings) for key, several in spec.sets.items()}
    readers = {key: [_reader(source) for source in several] for key, several in sources.items()}
    every = [reader for several in readers.values() for reader in several]
    given = tuple(classes) if classes is not None else spec.classes
    read = {reader: reader.read(given) for reader in dict.fromkeys(every)}
    names = [dataset.classes for dataset in read.values()]
    if any(other != names[0] for other in names):
        together = tuple(dict.fromkeys(name for own in names for name in own))
        if {reader.format for reader in every} == {"voc"}:
            together = tuple(sorted(together))
        findings.append(finding_of("classes-differ", f"the sets name different classes; used: {', '.join(together)}"))
        read = {reader: reader.read(together) for reader in read}
    _refuse_two_meanings(read.values())
    sets = {
        key: _joined(key, [(reader.source, read[reader]) for reader in several], spec, findings)
        for key, several in readers.items()
    }
    why = f"split spec {spec.path.name}: " + ", ".join(
        f"{key} = {' + '.join(reader.why for reader in several)}" for key, several in readers.items()
    )
    return ReadSpec(sets, tuple(read.values()), why, tuple(findings))


def thinned(dataset: Dataset, every: int) -> Dataset:
    """One of `every` images, from the first on; of a video one of so many frames. What is passed over is not lost."""
    if every == 1:
        return dataset
    places: Counter[str | None] = Counter()
    kept = set()
    for image in dataset.images:
        if places[image.sequence] % every == 0:
            kept.add(image.id)
        places[image.sequence] += 1
    part = dataset.only(kept, dataset.split)
    return replace(
        part, boxes_read=dataset.boxes_read - (dataset.boxes - part.boxes),
        images_read=dataset.images_read - (len(dataset) - len(part)),
    )  # fmt: skip


def _once(key: str, sources: Sequence[Source], findings: list[Finding]) -> list[Source]:
    """The sources with those that are the same as one."""
    found: dict[tuple[str, str | None, int], Source] = {}
    for source in sources:
        same = (str(source.path.resolve()), source.split, source.every)
        if same in found:
            ratio = source.ratio and source.ratio + (found[same].ratio or 0.0)
            said = f"counts once, with ratio {ratio:g}" if ratio else "counts once"
            findings.append(finding_of("set-named-twice", f"{key} names {source.name} twice; it {said}"))
            found[same] = replace(found[same], ratio=ratio)
        else:
            found[same] = source
    return list(found.values())


def _reader(source: Source) -> _Reader:
    found = recognise(source.path)
    if not found:
        raise nothing_here(source.path)
    name, why = found[0]
    there = READERS[name].splits(source.path)
    if source.split is None:
        more = f", its sets {', '.join(there)} together" if len(there) > 1 else ""
        return _Reader(source, name, why + more, None)
    roles: dict[str | None, str] = {role(split): split for split in reversed(there)}
    split = source.split if source.split in there else roles.get(source.split, source.split)
    if split == "all" or (name == "fddb" and split not in there):  # FDDB names its folds when it is asked for one
        return _Reader(source, name, f"{why}, {split}", None if split == "all" else split)
    if split not in there:
        known = [*there, "all"]
        raise DataError(
            f"{source.path.name}: no set {split!r}{did_you_mean(split, known)}; there are: {', '.join(known)}"
        )
    return _Reader(source, name, f"{why}, set {split}", split)


def _refuse_two_meanings(sets: Iterable[Dataset]) -> None:
    meanings: dict[str, str] = {}
    for found in (found for dataset in sets for found in dataset.findings if found.code == "numbered-classes"):
        numbers: Mapping[str, str] = found.evidence["numbers"]
        for number, name in numbers.items():
            if meanings.setdefault(number, name) != name:
                raise DataError(
                    f"class number {number} is {meanings[number]!r} in one list and {name!r} in another",
                    problems=["where a list has a number 0 its numbers are counted from 0, else from 1"],
                    hint="number the classes of all lists alike, or put the lists into one folder",
                )


def _joined(key: str, read: Sequence[tuple[Source, Dataset]], spec: Spec, findings: list[Finding]) -> Dataset:
    """The sets of one role as one, whose parts they are."""
    if len(read) == 1:
        return replace(read[0][1], split=key)
    named = [replace(dataset, split=source.path.stem) for source, dataset in read]  # their ids are told apart by it
    for source, dataset in read:
        if not len(dataset):
            raise DataError(f"{spec.path.name}: {key}: {source.name} has no usable image")
    whole = merged(named, key)
    parts: list[Part] = []
    seen: set[Path] = set()
    for source, dataset in read:
        paths = {image.path for image in dataset.images}
        if shared := len(paths & seen):
            what = f"{shared} of the {len(paths)} images of {source.name} stand in a set before it too"
            findings.append(finding_of("shared-images", what))
        if source.ratio is not None and shared == len(paths):
            raise DataError(f"{spec.path.name}: {key}: {source.name} has no image that the sets before it have not")
        parts.append(Part(source.name, len(paths) - shared, source.ratio))
        seen |= paths
    formats = "+".join(dict.fromkeys(dataset.format for _, dataset in read))
    return replace(whole, root=spec.path.parent, format=formats, parts=tuple(parts))
