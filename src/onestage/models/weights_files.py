"""Weights files: tensors read without running any code, and what files of ours say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from onestage.errors import ModelError, did_you_mean
from onestage.models.published import PUBLISHED

NORM_COUNTS = ".num_batches_tracked"  # not used where a norm has a momentum, and absent before torch 0.4.1


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth/.pt file that holds nothing but tensors; never a pickle's code.

    A training checkpoint ({"model": …} as lufficc/SSD's, {"state_dict": …}, {"model_state_dict": …}) gives its model; a
    leading `module.` is dropped. Raises ModelError naming the file and what is wrong with it.
    """
    if not path.is_file():
        raise ModelError(
            f"no weights at {path}{did_you_mean(str(path), PUBLISHED)}",
            hint=f"a .safetensors, .pth or .pt file, imagenet, or one of: {', '.join(PUBLISHED)}",
        )
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelError(f"{path} is no readable safetensors file: {error}") from error
    except Exception as error:
        raise ModelError(
            f"{path} cannot be read as weights: {_why_unread(path, error)}",
            hint="weights must be plain tensors; files that need code to unpack are refused",
        ) from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise ModelError(
            f"{path} holds no state dict: expected names and tensors", hint="a file saved from state_dict()"
        )
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def _why_unread(path: Path, error: Exception) -> str:
    """torch's reason in a line; its own words where its error says none, or speaks of switches that are not ours."""
    if path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnpicklingError) and "weights only" in str(error).lower():
        return "it holds objects other than tensors"
    reason = str(error).partition("\n")[0][:200] if isinstance(error, RuntimeError) else ""
    return reason or "it is damaged, cut short, or no weights file"


def finite_state(path: Path) -> dict[str, Tensor]:
    """`read_state`; ModelError names the tensors that hold nan or inf, whether the answers would show it or not."""
    state = read_state(path)
    used = {name: tensor for name, tensor in state.items() if not name.endswith(NORM_COUNTS)}
    wrong = {name: int((~torch.isfinite(tensor)).sum()) for name, tensor in used.items() if tensor.is_floating_point()}
    problems = [f"{name}: {count} of {state[name].numel()} values" for name, count in wrong.items() if count]
    if problems:
        raise ModelError(
            f"{path} holds values that are not finite numbers, in {len(problems)} of {len(state)} tensors",
            problems=first_few(problems), hint="other weights, such as a run's best; fp16 holds no more than 65504",
        )  # fmt: skip
    return state


def read_card(path: Path) -> dict[str, Any]:
    """What weights of ours say of themselves: model, classes, size, options, fit.

    ModelError where they say nothing, or what no program of ours has written.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("onestage")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is no readable safetensors file: {error}") from error
    if text is None:
        raise ModelError(f"{path} does not say what model it belongs to", hint="model=NAME classes=[…]")
    try:
        card = json.loads(text)
    except ValueError:
        card = text
    if problems := _wrong_card(card):
        raise ModelError(
            f"{path} does not say rightly what model it belongs to", problems=problems,
            hint="the file as it was saved: its metadata were changed since, or its program is newer than this one",
        )  # fmt: skip
    return dict(card)


def _wrong_card(card: Any) -> list[str]:
    """What a card says that cannot be, a sentence each."""
    if not isinstance(card, dict):
        return [f"expected names and values, got {str(card)[:60]!r}"]
    size, classes = card.get("size"), card.get("classes")
    sides = isinstance(size, list) and len(size) == 2 and all(_whole(side) for side in size)
    named = isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes)
    scale = card.get("scale", 1)
    right = {
        "model": (isinstance(card.get("model"), str), "a name"), "classes": (named, "a list of names"),
        "size": (sides, "[width, height] in pixels"), "options": (isinstance(card.get("options"), dict), "a mapping"),
        "fit": (card.get("fit", "squash") in ("squash", "letterbox", "native"), "squash, letterbox or native"),
        "scale": (isinstance(scale, int | float) and 0 < scale < 1e6, "a number above 0"),
        "step": (card.get("step") is None or _whole(card["step"]), "a number of steps"),
    }  # fmt: skip
    return [f"{key}: expected {what}, got {card.get(key)!r}"[:200] for key, (fine, what) in right.items() if not fine]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def card_of(path: Path) -> dict[str, Any] | None:
    """`read_card`, or None for a file that says nothing of itself."""
    try:
        return read_card(path) if path.suffix == ".safetensors" else None
    except ModelError:
        return None


def first_few(problems: Sequence[str], most: int = 12) -> list[str]:
    """The first of many problems, and how many more there are."""
    rest = len(problems) - most
    return [*problems[:most], f"… and {rest} more"] if rest > 0 else list(problems)
