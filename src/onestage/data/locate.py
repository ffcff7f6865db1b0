"""What to say when a data path is missing, empty, or holds nothing that is known."""

from __future__ import annotations

from pathlib import Path

from onestage.data.formats import READERS, recognise
from onestage.data.formats.files import images_under, printable
from onestage.errors import DataError, did_you_mean


def existing(path: Path) -> Path:
    """The path itself. Raises DataError that names similar names beside it where it is not there."""
    if path.exists():
        return path
    above = path.absolute().parent
    while not above.exists():
        above = above.parent
    missing = path.absolute().relative_to(above).parts[0]
    near = did_you_mean(missing, sorted(printable(other.name) for other in above.iterdir())) if above.is_dir() else ""
    raise DataError(
        f"no such folder or file: {printable(str(path))}",
        problems=[f"{printable(str(above))} has no {missing!r}{near}"],
        hint="data= takes a folder, a data.yaml, a darknet .data file, a COCO JSON file, a face list, or a YAML that "
        "names the sets",
    )


def nothing_here(path: Path) -> DataError:
    """The error for a path that is no dataset of a known format: what is there, and what was looked for."""
    looked = [f"{reader.NAME}: {reader.LOOKED_FOR}" for reader in READERS.values()]
    name = printable(str(path))
    if path.is_file() and not path.stat().st_size:
        return DataError(f"{name} is empty", hint="fetch or export the file again")
    if path.is_file():
        return DataError(f"{name} is not an annotation file of a known format", problems=looked)
    if not any(path.iterdir()):
        return DataError(f"{name} is empty", problems=[f"looked for {line}" for line in looked])
    below = [child for child in sorted(path.iterdir()) if child.is_dir()][:50]
    inner = next((child for child in below if _recognised(child)), None)
    hint = f"data={printable(str(inner))}" if inner is not None else None
    images = sum(len(images_under(folder, deep=False)) for folder in (path, *below))
    if images and inner is None:
        message = f"{name} holds {images} image{'s' * (images != 1)} but no annotations that are known here"
    else:
        message = f"{name} is not a dataset of a known format"
    return DataError(message, problems=[f"looked for {line}" for line in looked], hint=hint)


def _recognised(path: Path) -> bool:
    try:
        return bool(recognise(path))
    except DataError:
        return False
