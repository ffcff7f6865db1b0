"""What exact resume needs: saved whole or not at all, checked when read, the one before kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from onestage.errors import ModelError, RecipeError, StorageError
from onestage.experiments.lock import held
from onestage.experiments.run import Run
from onestage.models.weights_files import read_card

LAST, LOCK = "state/last.pt", "state/lock"
# The card stands at the end of the file, where torch.load passes over it.
_MARK = b"\nonestage-state "
_CARD_BYTES = 1024


@dataclass(frozen=True)
class Saved:
    """A state read back: after which step it was saved, what it holds, and what had to be said on the way to it."""

    step: int
    state: dict[str, Any]
    path: Path
    said: tuple[str, ...] = ()


def save_state(run: Run, state: Mapping[str, Any], *, step: int, recipe: Mapping[str, Any]) -> None:
    """Write the training state after `step` into the run folder and keep the one before.

    A crash or a full disk leaves the earlier states as they are. `recipe` is the complete recipe in force; the card at
    the file's end holds its digest, the step and a checksum, so that a damaged or foreign file is told apart.
    """
    path = Path(run.folder) / LAST
    with run.replacing(LAST) as temporary:
        with temporary.open("wb") as file:
            hashing = _Hashing(file)
            try:
                torch.save(dict(state), hashing)  # type: ignore[arg-type]  # all that it calls is write
            except RuntimeError as error:  # how torch passes on that the disk is full
                raise hashing.refused or error from error
            card = {"step": step, "recipe": digest(recipe), "bytes": hashing.bytes}
            card["checksum"] = hashing.sealed(card)
            file.write(_MARK + json.dumps(card).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        before = _card(path)
        if before is not None and before["step"] != step:
            path.replace(_named(run, before["step"]))
    for old in _named_states(run)[1:]:
        with contextlib.suppress(OSError):
            old.unlink()


def load_state(run: Run, *, at_most: int | None = None) -> Saved | None:
    """The newest state that is whole, of step `at_most` or before; None where the run was stopped before its first.

    A damaged file is passed over in favour of the one before, which `said` tells. Tensors, numbers and text only are
    read, never code. Raises ModelError where there are files but none is whole.
    """
    said: list[str] = []
    bad = 0
    for path in _newest_first(run):
        card = _card(path)
        if card is not None and at_most is not None and card["step"] > at_most:
            continue
        damage = "it has no card at its end" if card is None else _damage(path, card)
        if card is None or damage:
            bad += 1
            said.append(f"{path} is damaged ({damage})")
            continue
        told = [f"{line}; the state after step {card['step']} is used" for line in said]
        return Saved(int(card["step"]), _content(path), path, tuple(told))
    if not bad:
        return None
    last = run.weights_dir / "last.safetensors"
    learnt = f"start a new run from what it has learnt: weights={last}, or " if last.is_file() else ""
    raise ModelError(
        f"run {run.name} has no whole state to go on from", problems=said,
        hint=f"put a state back from a copy; or {learnt}do the same run again under another name: "
        f"onestage train {run.folder / 'recipe.yaml'} name=…",
    )  # fmt: skip


def saved_steps(run: Run) -> list[int]:
    """After which steps there are states, newest first; what their cards say, unchecked."""
    return sorted({card["step"] for path in _newest_first(run) if (card := _card(path)) is not None}, reverse=True)


def finish_best(run: Run, best: Mapping[str, Any] | None) -> None:
    """Make the last weights the best, where the state calls those of their step the `best` and the best are others.

    The state is saved before best.safetensors is replaced, so that a process that dies between the two loses nothing.
    """
    last, kept = (run.weights_dir / f"{name}.safetensors" for name in ("last", "best"))
    if best is not None and _step_of(last) == best["step"] != _step_of(kept):
        run.write_file("weights/best.safetensors", last.read_bytes())


def refuse_edited_recipe(run: Run, saved: Saved) -> None:
    """RecipeError where recipe.yaml was edited by hand since the state was saved: nobody would know what changed.

    So is one that was edited since the last segment began, by another recipe than the state's.
    """
    known = {digest(recipe) for recipe in (run.recipe, *run.earlier_recipes)}
    last = [segment["recipe"] for segment in run.info.get("segments", [])[-1:] if "recipe" in segment]
    if not {(_card(saved.path) or {}).get("recipe"), *last} <= known:
        raise RecipeError(
            f"{run.folder / 'recipe.yaml'} is not the recipe that the state after step {saved.step} was saved with",
            hint=f"put back recipe.yaml as it was (or the state, if it is another run's); change keys so that it is "
            f"recorded: onestage train --resume {run.name} key=value",
        )


def digest(recipe: Mapping[str, Any]) -> str:
    """A short hash of a recipe's keys and values, whatever their order."""
    text = json.dumps(recipe, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def held_by_us(run: Run) -> contextlib.AbstractContextManager[None]:
    """Hold the run's lock while training it; UsageError where another process trains it."""
    return held(Path(run.folder) / LOCK)


def tidy(run: Run, saved: Saved | None = None) -> int:
    """Remove what killed saves left behind, and how many files that were; only for who holds the run's lock.

    `saved` is the state that the run goes on from: damaged ones and those of later steps make way for it.
    """
    if saved is not None:
        saved.path.replace(run.folder / LAST)
        for path in _named_states(run):
            if (card := _card(path)) is None or card["step"] >= saved.step:
                path.unlink()
    left = [path for place in (".", "weights", "state", "recorder") for path in (run.folder / place).glob(".*.part")]
    for path in left:
        with contextlib.suppress(OSError):
            path.unlink()
    return len(left)


def told_loss(error: StorageError, run: Run, step: int) -> StorageError:
    """`error`, met after `step`, with what it costs: the steps since the last state must be done again."""
    steps = saved_steps(run)
    lost = step - (steps[0] if steps else 0)
    if not steps:
        cost = f"no state was saved yet: the run would begin again, {_counted(step)} are lost"
    elif not lost:
        cost = f"the state after step {step} is saved: nothing is lost"
    else:
        cost = f"the last state is of step {steps[0]}: {_counted(lost)} will be done again"
    hint = f"make room there, or move the folder of the run elsewhere; then: onestage train --resume {run.name}"
    told = StorageError(error.message, problems=(*error.problems, cost), hint=hint)
    told.__cause__ = error
    return told


def _step_of(weights: Path) -> int | None:
    """After which step the weights were taken; None where there are none that say so."""
    try:
        return read_card(weights).get("step") if weights.is_file() else None
    except ModelError:
        return None


def try_to_say(run: Run, error: BaseException) -> None:
    """Mark the run as failed where the disk still takes it; the first error is what the user must see."""
    try:
        run.finish("failed", getattr(error, "message", None) or f"{type(error).__name__}: {error}"[:300])
    except StorageError:
        error.add_note("run.json could not be updated either")


class _Hashing:
    """A file that is written to, with a running checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.bytes = file, hashlib.blake2b(digest_size=16), 0
        self.refused: OSError | None = None

    def write(self, data: Any) -> int:
        self._hash.update(data)
        self.bytes += memoryview(data).nbytes
        try:
            return self._file.write(data)
        except OSError as error:
            self.refused = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def sealed(self, card: Mapping[str, Any]) -> str:
        return _sealed(self._hash, card)


def _card(path: Path) -> dict[str, Any] | None:
    """What the end of a state file says of it; None where it says nothing sensible."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _CARD_BYTES))
            _, mark, text = file.read().rpartition(_MARK)
        card = json.loads(text) if mark else None
    except (OSError, ValueError):
        return None
    if not isinstance(card, dict) or not isinstance(card.get("checksum"), str):
        return None
    return card if all(isinstance(card.get(key), int) for key in ("step", "bytes")) else None


def _content(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0][:200]
        raise ModelError(f"{path} cannot be read: {reason}", hint="start the run again under a new name") from error
    return state


def _damage(path: Path, card: Mapping[str, Any]) -> str:
    """What is wrong with a state file, "" where it is whole."""
    hashing, left = hashlib.blake2b(digest_size=16), int(card["bytes"])
    try:
        with path.open("rb") as file:
            while left and (block := file.read(min(left, 1 << 20))):
                hashing.update(block)
                left -= len(block)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if left:
        return f"{left} bytes are missing"
    return "" if _sealed(hashing, card) == card["checksum"] else "its content does not give its checksum"


def _sealed(content: hashlib.blake2b, card: Mapping[str, Any]) -> str:
    """The checksum of a state's content and of what its card says of it."""
    content.update(json.dumps([card.get(key) for key in ("step", "recipe", "bytes")]).encode())
    return content.hexdigest()


def _named(run: Run, step: int) -> Path:
    return Path(run.state_dir) / f"step-{step:08d}.pt"


def _named_states(run: Run) -> list[Path]:
    """The states before the last, newest first; names of eight digits sort like their steps."""
    return sorted(Path(run.state_dir).glob("step-*.pt"), reverse=True)


def _newest_first(run: Run) -> Sequence[Path]:
    """The last state and those before it; the last is missing where a save was killed between two renames."""
    last = Path(run.folder) / LAST
    return [*([last] if last.exists() else []), *_named_states(run)]


def _counted(steps: int) -> str:
    return f"{steps} step{'s' * (steps != 1)}"
