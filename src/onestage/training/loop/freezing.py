"""What is frozen: words to parameters, norms that keep their statistics, proof that nothing moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from onestage.errors import RecipeError, did_you_mean
from onestage.models.detector import Detector
from onestage.training.loop.norms import batch_norms

ALL_BUT = "all-but-"
NONE = "none"


def parameters_of(detector: Detector, word: str) -> set[int]:
    """The ids of the parameters a word means; empty where it means nothing.

    A word is a part (`backbone`), `all-but-heads` (or another part or name), the name of a module or parameter as in
    the weights file, or a pattern with * and ? of such names (`backbone.blocks.0*`). A module means all it holds.
    """
    if word.startswith(ALL_BUT):
        kept = parameters_of(detector, word.removeprefix(ALL_BUT))
        return {id(parameter) for parameter in detector.parameters()} - kept if kept else set()
    parts = detector.parts()
    if word in parts:
        return {id(parameter) for parameter in parts[word].parameters()}
    found = {id(parameter) for name, parameter in detector.named_parameters() if fnmatchcase(name, word)}
    for name, module in detector.named_modules():
        if name and fnmatchcase(name, word):
            found |= {id(parameter) for parameter in module.parameters()}
    return found


def problems_with(detector: Detector, words: Iterable[str], key: str = "freeze") -> list[str]:
    """What is wrong with the words of `key`: those that name nothing of this detector."""
    parts = list(detector.parts())
    names = [name for name, _ in (*detector.named_modules(), *detector.named_parameters()) if name]
    choices = [*parts, *(ALL_BUT + part for part in parts), NONE]
    problems = []
    for word in words:
        if word in parts and not parameters_of(detector, word):
            problems.append(
                f"{key}: {word} has nothing to learn in this network; its parts that do: {_learning(detector)}"
            )
        elif word != NONE and not parameters_of(detector, word):
            near = did_you_mean(word, names) if "." in word else did_you_mean(word, choices)
            problems.append(
                f"{key}: no part {word!r}{near}; there are: {', '.join(parts)}, all-but-PART, and the names of modules "
                "and parameters, also with *"
            )
    return problems


def _learning(detector: Detector) -> str:
    return ", ".join(name for name, part in detector.parts().items() if any(True for _ in part.parameters()))


def frozen_ids(detector: Detector, words: Iterable[str]) -> set[int]:
    """The ids of the parameters that `words` freeze."""
    return set().union(*(parameters_of(detector, word) for word in words if word != NONE))


def freeze(detector: Detector, words: Iterable[str]) -> list[nn.Module]:
    """Stop from learning what the words name, and let everything else learn, whatever was frozen before.

    Returns the modules all of whose parameters are frozen, outermost ones only: in training they run as in
    evaluation, so that their norms keep their statistics (`set_training`). RecipeError for a word that names nothing.
    """
    words = list(words)
    problems = problems_with(detector, words)
    if problems:
        raise RecipeError(f"{detector.name} has the parts {', '.join(detector.parts())}", problems=problems)
    frozen = frozen_ids(detector, words)
    for parameter in detector.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
    return frozen_modules(detector, frozen)


def frozen_modules(detector: Detector, frozen: set[int]) -> list[nn.Module]:
    """The outermost modules that have parameters, all of them among the ids `frozen`."""
    found: list[nn.Module] = []
    inside: set[int] = set()
    for module in detector.modules():  # parents before their children
        owned = [id(parameter) for parameter in module.parameters()]
        if id(module) not in inside and owned and frozen.issuperset(owned):
            found.append(module)
            inside |= {id(child) for child in module.modules()}
    return found


def set_training(detector: Detector, frozen: Sequence[nn.Module], norms: str = "own") -> None:
    """Training mode for all but the frozen modules; with `norms` "frozen" no batch norm takes new statistics."""
    detector.train()
    for module in frozen:
        module.eval()
    if norms == "frozen":
        for module in batch_norms(detector):
            module.eval()
