"""Which weights file is meant: by its path, or by the folder or name of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from onestage.errors import ModelError
from onestage.experiments.run import Run


def weights_of(what: str | Path, others: Iterable[str] = ()) -> tuple[Path, Run | None]:
    """The weights file that a path, a run's folder or a run's name means, and the run it belongs to, if any.

    Of a run they are the best. Raises UsageError for an unknown run, which names those of `others` that may be meant,
    ModelError for weights that are not there.
    """
    path = Path(what).expanduser()
    if path.is_file():
        folder = path.resolve().parent.parent
        return path, Run(folder) if (folder / "run.json").is_file() else None
    if path.suffix in (".safetensors", ".pth", ".pt", ".weights", ".backup"):
        raise ModelError(f"no weights at {path}", hint="a weights file, or a run's folder or name")
    run = Run.open(what, others=others)
    best = run.weights_dir / "best.safetensors"
    if not best.is_file():
        raise ModelError(
            f"run {run.name} has no weights yet: it is {run.info.get('status')}",
            hint="wait for its first evaluation, or name a weights file",
        )
    return best, run
