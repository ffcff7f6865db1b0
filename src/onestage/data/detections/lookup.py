"""Which image and which class of a dataset a detection file means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from onestage.data.dataset import Dataset
from onestage.data.formats.files import IMAGE_SUFFIXES, printable
from onestage.errors import did_you_mean
from onestage.records import ImageInfo

_SEARCHED = 20_000  # names beyond this are not searched for a near one: it would take seconds


class Images:
    """The images of a dataset by id, file name, stem, or the end of their path.

    An id goes before a name, a name with suffix before one without. Folders before a name decide between images of one
    name; where names repeat, or ids have folders, a folder that does not agree finds nothing. A number that is
    no id finds the image whose name is that number, as 000000000139 for 139.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._images = dataset.images
        self._ids = {image.id: i for i, image in enumerate(dataset.images)}
        self._texts: dict[str, list[int]] = defaultdict(list)
        self._names: dict[str, list[int]] = defaultdict(list)
        self._stems: dict[str, list[int]] = defaultdict(list)
        self._numbers: dict[int, list[int]] = defaultdict(list)
        for i, image in enumerate(dataset.images):
            self._texts[str(image.id)].append(i)
            last = str(image.id).rpartition("/")[2]
            for name in {image.path.name, last}:
                self._names[name].append(i)
            for stem in {image.path.stem, last}:
                self._stems[stem].append(i)
            if _is_count(image.path.stem):
                self._numbers[int(image.path.stem)].append(i)
        self._strict = any(len(found) > 1 for found in self._stems.values()) or any(
            "/" in str(image.id) for image in dataset.images
        )

    def find(self, named: int | str) -> list[int]:
        """Indices of the images that `named` may mean: one where it is clear, none, or several."""
        if named in self._ids:
            return [self._ids[named]]
        text = str(named).strip().replace("\\", "/")
        if len(found := self._texts.get(text, [])) == 1:
            return found
        path = PurePosixPath(text)
        folders = tuple(part for part in path.parts[:-1] if part not in ("/", ".", ".."))
        stem = path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
        for known in (self._names.get(path.name, []), self._stems.get(stem, [])):
            if chosen := self._nearest(known, folders):
                return chosen
        return self._numbers.get(int(text), []) if _is_count(text) else []

    def _nearest(self, known: Sequence[int], folders: Sequence[str]) -> list[int]:
        agreed = {i: self._agreement(self._images[i], folders) for i in known}
        if folders and self._strict:
            agreed = {i: parts for i, parts in agreed.items() if parts > 0}
        best = max(agreed.values(), default=0)
        return [i for i, parts in agreed.items() if parts == best]

    def _agreement(self, image: ImageInfo, folders: Sequence[str]) -> int:
        """How many of the last folders agree with those of the image, which must where its id has some."""
        own = str(image.id).split("/")[:-1]
        if own and folders:
            common = _common_end(own, folders)
            return common if common == min(len(own), len(folders)) else 0
        return _common_end(image.path.parts[:-1], folders)

    def near(self, named: int | str) -> str:
        """The end of a message: the names that may have been meant."""
        names = [*self._texts, *(name for name in self._names if name not in self._texts)]
        return did_you_mean(str(named), names[:_SEARCHED])

    def told(self, indices: Iterable[int]) -> str:
        """Where some images lie, for a message."""
        return " or ".join(printable(str(self._images[i].path)) for i in indices)


def _is_count(text: str) -> bool:
    """Whether `text` is a whole number of a length that ids and class numbers have."""
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _common_end(first: Sequence[str], second: Sequence[str]) -> int:
    count = 0
    for one, other in zip(reversed(first), reversed(second), strict=False):
        if one != other:
            break
        count += 1
    return count


class Classes:
    """The classes of a dataset by name, or by number where `numbers` (number → label) knows it.

    `tails` also takes a name by its end after an underscore (results_cat for cat), the longest that is known;
    `alone` takes any name for the only class there is, as in formats that know faces only.
    """

    def __init__(
        self, classes: Sequence[str], numbers: Mapping[int, int], *, tails: bool = False, alone: bool = False
    ) -> None:
        self._labels = {name: label for label, name in enumerate(classes)}
        self._numbers = numbers
        self._tails = tails
        self._alone = alone and len(classes) == 1

    def find(self, named: int | str) -> int | None:
        """The label that `named` means; None where there is none."""
        if isinstance(named, str):
            if named in self._labels:
                return self._labels[named]
            if _is_count(named) and int(named) in self._numbers:
                return self._numbers[int(named)]
            parts = named.split("_")
            ends = ["_".join(parts[at:]) for at in range(1, len(parts))] if self._tails else []
            for end in ends:
                if end in self._labels:
                    return self._labels[end]
        elif named in self._numbers:
            return self._numbers[named]
        return 0 if self._alone else None

    def assumed(self, named: int | str) -> bool:
        """Whether `named` is only taken for the class because there is no other."""
        return self._alone and named not in self._labels

    def unknown(self, named: int | str) -> str:
        """What to say of a class that is not found."""
        if isinstance(named, int) or named.lstrip("-").isdecimal():
            known = _some(sorted(self._numbers))
            return f"class {named} is none of {known}" if known else f"class {named}: the data names no class"
        folded = {name.casefold(): name for name in self._labels}
        if near := folded.get(named.casefold()):
            return f"class {named!r} is not in the data (did you mean {near!r}?)"
        return f"class {named!r} is not in the data{did_you_mean(named, self._labels)}"


def _some(values: Sequence[int], most: int = 12) -> str:
    return ", ".join(map(str, values[:most])) + (f", … ({len(values)} in all)" if len(values) > most else "")
