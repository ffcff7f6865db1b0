"""The run folder: the one truth about a run; append-only."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

import onestage.experiments.storage as storage
from onestage.errors import UsageError, did_you_mean
from onestage.experiments.naming import named_folder, numbered_folder, run_names, runs_root
from onestage.experiments.segments import begun, ended
from onestage.experiments.tables import csv_text, merged, number, read_csv, rising, time_now

Status = Literal["running", "finished", "failed", "diverged", "stopped"]


class Run:
    """One run folder: everything training says goes in here, everything a report shows comes out of here.

    Writing replaces files whole (a full disk leaves the earlier file usable) or appends lines; nothing is truncated,
    also on resume: after a resume, `steps` and `results` give what counts, and the files still hold the rest.
    """

    def __init__(self, folder: str | Path) -> None:
        """The run in `folder`, or of that name under `runs_root()`; UsageError where there is neither.

        A folder that holds no run.json yet is taken as it is; `open` refuses it.
        """
        found: Path | None = _run_folder(folder) or (Path(folder) if Path(folder).is_dir() else None)
        self.folder: Path = found or Run.open(folder).folder

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def create(cls, root: Path | None = None, name: str | None = None, prefix: str = "run") -> Run:
        """A new run folder under `root` (default: `runs_root()`) called `name`, or else `<prefix>-001`, -002, …

        Numbers are never given twice, even after a folder was deleted, and two processes never get the same one.
        Raises UsageError for a name that is taken or cannot be a folder's, StorageError where nothing can be written.
        """
        root = root or runs_root()
        try:
            root.mkdir(parents=True, exist_ok=True)
            folder = named_folder(root, name) if name is not None else numbered_folder(root, prefix)
            run = cls(folder)
            for part in (run.weights_dir, run.state_dir):
                part.mkdir()
        except OSError as error:
            raise storage.storage_error(root, error) from error
        info = {
            "id": secrets.token_hex(6), "name": folder.name, "created": time_now(), "status": "running", "parents": [],
            "segments": [],
        }  # fmt: skip
        storage.write_bytes(run.info_path, storage.as_json(info).encode())
        return run

    @classmethod
    def open(cls, path_or_name: str | Path, root: Path | None = None, others: Iterable[str] = ()) -> Run:
        """The run in the folder `path_or_name`, or of that name under `root`; UsageError says which names there are.

        `others` are names of something else that a misspelt one may mean.
        """
        root = root or runs_root()
        if (folder := _run_folder(path_or_name, root)) is not None:
            return cls(folder)
        names = run_names(root)
        if Path(path_or_name).is_dir():
            raise UsageError(
                f"{path_or_name} is not a run folder: it holds no run.json",
                hint="give the folder that `onestage train` wrote, or a name that `onestage runs ls` lists",
            )
        raise UsageError(
            f"there is no run {str(path_or_name)!r}{did_you_mean(str(path_or_name), [*names, *others])}",
            hint=f"{root} holds {', '.join(names[:8])}{' …' if len(names) > 8 else ''}"
            if names
            else f"{root} holds no runs yet; `onestage train` makes one, ONESTAGE_RUNS says where they lie",
        )

    # Places

    @property
    def name(self) -> str:
        """What the run is called: its folder's name."""
        return self.folder.resolve().name

    @property
    def info_path(self) -> Path:
        """run.json: id, status, code, data, environment, segments."""
        return self.folder / "run.json"

    @property
    def weights_dir(self) -> Path:
        """Where best.safetensors and last.safetensors lie."""
        return self.folder / "weights"

    @property
    def state_dir(self) -> Path:
        """Where that lies what an exact resume needs."""
        return self.folder / "state"

    @property
    def report_path(self) -> Path:
        """report.html."""
        return self.folder / "report.html"

    # Writing

    def write_asked(self, asked: str | Mapping[str, Any]) -> None:
        """Keep what the user wrote, as text or mapping; an earlier asked.yaml that differs stays as asked-1.yaml."""
        self._write_yaml("asked", asked)

    def write_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Keep what really ran, every value; an earlier recipe.yaml that differs stays as recipe-1.yaml."""
        self._write_yaml("recipe", recipe)

    def update(self, **fields: Any) -> None:
        """Merge `fields` into run.json, mappings within mappings too; the file is replaced whole."""
        storage.write_bytes(self.info_path, storage.as_json(merged(self.info, storage.plain(fields))).encode())

    def begin(self, from_step: int = 0, **facts: Any) -> None:
        """Open a segment: a stretch of steps done by one process; a resumed run has several.

        `facts` say where and how it runs; see `segments.facts`.
        """
        segments = begun(self.info.get("segments", []), from_step, self._last_step_recorded(), facts)
        self.update(status="running", segments=segments)

    def finish(self, status: Status = "finished", error: str | None = None) -> None:
        """Say how the run ended, by which `error` if by one, and close its segment; ValueError for no status."""
        if status not in get_args(Status):
            raise ValueError(f"status: expected one of {', '.join(get_args(Status))}, got {status!r}")
        segments = ended(self.info.get("segments", []), self._last_step_recorded())
        said = {"error": error} if error is not None or "error" in self.info else {}
        self.update(status=status, segments=segments, **said)

    def append_step(self, row: Mapping[str, Any]) -> None:
        """Add one optimiser step to steps.jsonl; numbers that are not finite are kept as "nan", "inf", "-inf"."""
        text = storage.as_json([row]).split("\n")[1]
        storage.append_line(self.folder / "steps.jsonl", text)

    def append_log(self, lines: Sequence[str]) -> None:
        """Add lines to train.log, together: a killed process leaves all of them or none."""
        storage.append_line(self.folder / "train.log", "\n".join(lines))

    def append_result(self, row: Mapping[str, Any]) -> None:
        """Add one evaluation to results.csv; a column seen for the first time is added, and no row is lost."""
        path = self.folder / "results.csv"
        columns, rows = read_csv(path)
        text = csv_text([*columns, *(column for column in row if column not in columns)], [*rows, storage.plain(row)])
        storage.write_bytes(path, text.encode())

    def write_predictions(self, predictions: Sequence[Mapping[str, Any]]) -> None:
        """Keep the detections on the validation images as a COCO results list; category_id is label + 1."""
        self.write_file("predictions.json", storage.as_json(list(predictions)).encode())

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Keep every metric with protocol, n and interval, the curves and the operating point."""
        self.write_file("metrics.json", storage.as_json(metrics).encode())

    def write_findings(self, findings: Sequence[Mapping[str, Any]]) -> None:
        """Keep what was found in the data: a list of `Finding.as_dict()`."""
        self.write_file("findings.json", storage.as_json(list(findings)).encode())

    def write_file(self, relative: str, data: bytes) -> None:
        """Put a file into the folder, whole or not at all: "weights/best.safetensors", say. Raises StorageError."""
        storage.write_bytes(self._place(relative), data)

    @contextlib.contextmanager
    def replacing(self, relative: str) -> Iterator[Path]:
        """A path to write to, which takes the place of `relative` when the block ends well; see storage.replacing."""
        with storage.replacing(self._place(relative)) as temporary:
            yield temporary

    # Reading

    @property
    def info(self) -> dict[str, Any]:
        """What run.json says; UsageError where it cannot be read."""
        try:
            found = storage.read_json(self.info_path)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.info_path} cannot be read: {error}",
                hint=f"put it back from a copy; the run's weights in {self.weights_dir} can be used without it",
            ) from error
        if not isinstance(found, dict):
            raise UsageError(f"{self.info_path} cannot be read: expected a mapping, got {type(found).__name__}")
        return found

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The optimiser steps that count, steps rising: what a resume did again replaces what it went back over."""
        return rising(storage.read_lines(self.folder / "steps.jsonl")[0])

    @property
    def damaged_lines(self) -> int:
        """How many lines of steps.jsonl cannot be read, such as one cut by a crash."""
        return storage.read_lines(self.folder / "steps.jsonl")[1]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The evaluations that count, steps rising; numbers as float, empty cells left out."""
        rows = read_csv(self.folder / "results.csv")[1]
        return rising([{key: number(cell) for key, cell in row.items() if cell != ""} for row in rows])

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json says; empty before the first evaluation."""
        found = self._optional("metrics.json")
        return found if isinstance(found, dict) else {}

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """The COCO results list of predictions.json; empty before the first evaluation."""
        found = self._optional("predictions.json")
        return found if isinstance(found, list) else []

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What was found in the data; each is `Finding.as_dict()`."""
        found = self._optional("findings.json")
        return found if isinstance(found, list) else []

    @property
    def incidents(self) -> list[dict[str, Any]]:
        """What the flight recorder reported of steps that went wrong: recorder/step-*.json, steps rising."""
        found = (self._optional(f"recorder/{path.name}") for path in sorted(self.folder.glob("recorder/step-*.json")))
        kept = [report for report in found if isinstance(report, dict) and isinstance(report.get("step"), int)]
        return sorted(kept, key=lambda report: report["step"])

    @property
    def recipe(self) -> dict[str, Any]:
        """What really ran, as recipe.yaml says; empty where it is missing."""
        return self._read_yaml("recipe.yaml")

    @property
    def earlier_recipes(self) -> list[dict[str, Any]]:
        """What ran before a resume changed the recipe: recipe-1.yaml, -2, …; none where nothing was changed."""
        found = sorted(self.folder.glob("recipe-*.yaml"), key=lambda path: (len(path.name), path.name))
        return [self._read_yaml(path.name) for path in found]

    @property
    def asked(self) -> dict[str, Any]:
        """What the user asked for, as asked.yaml says; empty where it is missing."""
        return self._read_yaml("asked.yaml")

    def _place(self, relative: str) -> Path:
        """Where a file of that name lies; its folder is made."""
        path = self.folder / relative
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage.storage_error(path, error) from error
        return path

    def _optional(self, name: str) -> Any:
        try:
            return storage.read_json(self.folder / name)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.folder / name} cannot be read: {error}") from error

    def _read_yaml(self, name: str) -> dict[str, Any]:
        try:
            found = yaml.safe_load((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UsageError(f"{self.folder / name} cannot be read: {error}") from error
        return found if isinstance(found, dict) else {}

    def _write_yaml(self, stem: str, content: str | Mapping[str, Any]) -> None:
        path = self.folder / f"{stem}.yaml"
        if not isinstance(content, str):
            content = storage.as_yaml(content)
        if path.exists():
            earlier = path.read_bytes()
            if earlier == content.encode():
                return
            unused = next(n for n in range(1, 10_000) if not (self.folder / f"{stem}-{n}.yaml").exists())
            storage.write_bytes(self.folder / f"{stem}-{unused}.yaml", earlier)
        storage.write_bytes(path, content.encode())

    def _last_step_recorded(self) -> int | None:
        steps = self.steps
        return int(steps[-1]["step"]) if steps else None


def _run_folder(path_or_name: str | Path, root: Path | None = None) -> Path | None:
    """The folder that holds run.json: at the path itself, else of that name under `root`; None where there is none."""
    places = (Path(path_or_name), (root or runs_root()) / path_or_name)
    return next((folder for folder in places if (folder / "run.json").is_file()), None)
