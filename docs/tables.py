"""Writes the parts of README.md and docs/ that are made from the code: the tree and the tables.

    python docs/tables.py            rewrite them
    python docs/tables.py --check    say which are out of date; exit 1 if any is

Each part stands between two comments, `<!-- made: NAME -->` and `<!-- end: NAME -->`; the rest is not touched.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "onestage"
# From the ground floor to the roof; a room that is not named here comes last.
ORDER = (
    "errors.py", "records.py", "fetch", "boxes", "data", "models", "evaluation", "experiments", "training", "analysis",
    "deploy", "report", "api.py", "cli",
)  # fmt: skip
SHOWN = (".py", ".css", ".js", ".j2")
FOLDERS = {
    "recipes": "Recipes that can be run as they are; each head names paper, hardware, hours and expected score.",
    "studies": "A base recipe and named changes to it, with what a published table of them said.",
    "benchmarks": "Speed beside named peers, one command each.",
    "tests": "Mirrors the package; tests/golden holds small files with known answers and their source.",
    "docs": "The documentation; `make docs` builds it.",
    ".ci": "`run` checks everything: tests, documentation, the built wheel.",
}


def caption(path: Path) -> str:
    """What a file is for: the first line of its docstring, or of the comment it begins with."""
    if path.is_dir():
        path = path / "__init__.py"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    if path.suffix in (".yaml", ".yml"):
        return text.partition("\n")[0].lstrip("# ")
    comment = re.match(r"\s*(?:/\*|//|\{#-?)\s*(.*?)\s*(?:\*/|-?#\}|\n)", text)
    return comment[1] if comment else ""


def tree() -> str:
    """The folder tree of the package, a caption per file, then the folders beside it."""
    rows = [("src/onestage/", caption(PACKAGE)), *_branches(PACKAGE, "")]
    for name, words in FOLDERS.items():
        rows.append((f"{name}/", words))
        if name in ("recipes", "studies", "benchmarks"):
            files = sorted(path for path in (ROOT / name).iterdir() if path.suffix in (".py", ".yaml"))
            rows += [(f"{_turn(path is files[-1])}{path.name}", caption(path)) for path in files]
    wide = max(len(name) for name, _ in rows) + 2
    return "```text\n" + "\n".join(f"{name:<{wide}}{words}".rstrip() for name, words in rows) + "\n```"


def _branches(folder: Path, before: str) -> list[tuple[str, str]]:
    here = [path for path in folder.iterdir() if path.suffix in SHOWN and path.name != "__init__.py"]
    here += [path.parent for path in folder.glob("*/__init__.py")]
    here.sort(key=lambda path: (ORDER.index(path.name) if path.name in ORDER else len(ORDER), path.name))
    rows = []
    for path in here:
        last = path is here[-1]
        rows.append((f"{before}{_turn(last)}{path.name}{'/' * path.is_dir()}", caption(path)))
        if path.is_dir():
            rows += _branches(path, before + ("   " if last else "│  "))
    return rows


def _turn(last: bool) -> str:
    return "└─ " if last else "├─ "


def keys() -> str:
    """Every key of a recipe with its default and meaning."""
    from onestage.training.recipe import describe_keys

    return _table(
        ("key", "default", "meaning"), [(f"`{key}`", f"`{value}`", text) for key, value, text in describe_keys()]
    )


def model_keys() -> str:
    """What each model changes in the defaults."""
    from onestage import models

    rows = []
    for name in models.MODELS:
        usual, tuned = models.defaults(name), models.model_class(name).tuning_defaults
        rows.append((f"`{name}`", *(_listed(keys) or "nothing" for keys in (usual, tuned))))
    return _table(("model", "its own defaults", "where it starts from trained weights"), rows)


def _listed(keys: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={_plain(value)}`" for key, value in keys.items())


def codes() -> str:
    """What reading a dataset may find: code, weight, effect and remedy."""
    from onestage.data.formats.listing import CODES

    return _table(
        ("code", "weight", "what comes of it", "what to do"),
        [(f"`{code}`", severity, effect, remedy) for code, (severity, effect, remedy) in CODES.items()],
    )


def detection_codes() -> str:
    """What reading detection files may find: code, weight, effect and remedy."""
    from onestage.data.detections.faults import FAULTS

    return _table(
        ("code", "weight", "what comes of it", "what to do"),
        [(f"`{code}`", severity, effect, remedy) for code, (severity, effect, remedy) in FAULTS.items()],
    )


def _plain(value: object) -> str:
    return "none" if value is None else str(value)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "tree": ("README.md", tree),
    "keys": ("docs/recipes.md", keys),
    "model-keys": ("docs/recipes.md", model_keys),
    "codes": ("docs/data.md", codes),
    "detection-codes": ("docs/detections.md", detection_codes),
}


def renewed(page: str, name: str, text: str) -> str:
    """`page` with the part called `name` replaced; ValueError where the page has no place for it."""
    pattern = re.compile(rf"(<!-- made: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"no place for the part {name!r}: expected the comments 'made: {name}' and 'end: {name}'")
    return pattern.sub(lambda found: found[1] + text + "\n" + found[2], page)


def out_of_date() -> dict[Path, str]:
    """The pages that differ from what the code says, each with its new text."""
    pages: dict[Path, str] = {}
    for name, (where, make) in PARTS.items():
        path = ROOT / where
        pages[path] = renewed(pages.get(path) or path.read_text(encoding="utf-8"), name, make())
    return {path: text for path, text in pages.items() if text != path.read_text(encoding="utf-8")}


def main() -> int:
    """Rewrite or check; the exit code."""
    check = "--check" in sys.argv[1:]
    old = out_of_date()
    for path, text in old.items():
        print(f"{path.relative_to(ROOT)}: {'out of date' if check else 'rewritten'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
