"""The house rules that no other tool keeps: sizes, names, captions, and pages that say what the code says."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "onestage"
MODULES = sorted(PACKAGE.rglob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")

LONGEST_FILE, LONGEST_FUNCTION, LONGEST_CAPTION = 300, 60, 100
# File → why it may be longer than LONGEST_FILE.
LONGER_FILES: dict[str, str] = {}
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers", "tools", "core"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def tables() -> ModuleType:
    """docs/tables.py, which makes the tree and the tables of the pages."""
    spec = importlib.util.spec_from_file_location("tables_of_docs", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(problems: list[str], advice: str) -> None:
    assert not problems, "\n  ".join(["", *problems, advice])


# ---- sizes and names


def test_files_are_short() -> None:
    lengths = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    long = [
        f"{file}: {n} lines" for file, n in lengths.items() if n > LONGEST_FILE and file not in LONGER_FILES
    ]  # fmt: skip
    told(long, f"a file has at most {LONGEST_FILE} lines: give a part of it a room of its own")
    idle = [file for file in LONGER_FILES if lengths.get(file, 0) <= LONGEST_FILE]
    told(idle, "these files are short enough: take them out of LONGER_FILES")


def test_functions_are_short() -> None:
    long = []
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name(path)}:{node.lineno}: {node.name} has {lines} lines without its docstring")
    told(long, f"a function has at most {LONGEST_FUNCTION} lines")


def test_every_module_says_what_it_is_for() -> None:
    problems = []
    for path in MODULES:
        line = (ast.get_docstring(parsed(path)) or "").partition("\n")[0]
        if not line:
            problems.append(f"{name(path)}: no docstring")
        elif len(line) > LONGEST_CAPTION:
            problems.append(f"{name(path)}: {len(line)} characters: {line}")
    told(problems, f"a module begins with one line of at most {LONGEST_CAPTION} characters; README.md's tree shows it")


def test_no_drawers() -> None:
    drawers = [name(path) for path in PACKAGE.rglob("*") if path.stem.lower().strip("_") in DRAWERS]
    told(drawers, "name a module after what it does; a function without a room is a sign of a missing room")


def test_test_files_have_names_of_their_own() -> None:
    stems = [path.stem for path in (ROOT / "tests").rglob("test_*.py")]
    told(sorted({stem for stem in stems if stems.count(stem) > 1}), "tests without packages need unique file names")


def test_tests_mirror_the_rooms() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/test_*.py")}
    told(sorted(folders - rooms), "tests/<room>/ is called after the room it tests")


# ---- pages that say what the code says


def test_made_parts_of_the_pages_are_up_to_date() -> None:
    old = [name(path) for path in tables().out_of_date()]
    told(old, "run `make tables` (python docs/tables.py): it rewrites the tree and the tables from the code")


def test_the_tree_holds_every_module_with_its_caption() -> None:
    # Independent of docs/tables.py, so that a fault there does not hide itself
    tree = README[README.index("<!-- made: tree -->") : README.index("<!-- end: tree -->")]
    rows = re.findall(r"^[│├└─ ]*([\w.]+\.py|[\w/]+/) +(\S.*)$", tree, re.MULTILINE)
    problems = []
    for path in MODULES:
        caption = (ast.get_docstring(parsed(path)) or "").partition("\n")[0]
        title = path.name
        if path.name == "__init__.py":
            title = "src/onestage/" if path.parent == PACKAGE else f"{path.parent.name}/"
        if (title, caption) not in rows:
            problems.append(f"{name(path)}: {caption}")
    told(problems, "README.md's tree lacks these, or says something else of them: run `make tables`")


def test_the_tables_can_be_found_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tables()
    monkeypatch.setitem(made.PARTS, "tree", ("README.md", lambda: "another tree"))
    assert [path.name for path in made.out_of_date()] == ["README.md"]
    with pytest.raises(ValueError, match="no place for the part"):
        made.renewed("a page without marks", "tree", "")


def test_readme_names_every_environment_variable() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in MODULES)
    used = set(re.findall(r"\bONESTAGE_[A-Z]+\b", source))
    told(
        sorted(used - set(re.findall(r"^\| `(ONESTAGE_[A-Z]+)`", README, re.MULTILINE))),
        "README.md does not tell these",
    )
    pages = README + "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    told(sorted(set(re.findall(r"\bONESTAGE_[A-Z]+\b", pages)) - used), "no such variable in the code")


def test_readme_and_docs_name_every_exit_code() -> None:
    from onestage import errors

    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OnestageError)
    ]
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    for kind in kinds:
        assert re.search(rf"^\| {kind.exit_code} \|", README, re.MULTILINE), kind
        assert re.search(rf"^\| {kind.exit_code} \|.*`{kind.__name__}`", commands, re.MULTILINE), kind


def test_readme_tells_the_data_conventions() -> None:
    table = README[README.index("## Data conventions") :].partition("\n## ")[0]
    for word in ("image", "box", "label", "size", "image id", "score", "`difficult`", "`ignore`", "`crowd`"):
        assert re.search(rf"^\| {re.escape(word)} \|", table, re.MULTILINE), word
    for fact in ("RGB", "xyxy", "float64", "half-open", "no background", "(width, height)"):
        assert fact in table, fact


def test_docs_tell_every_protocol_model_policy_and_sample() -> None:
    from onestage.data.augment import POLICIES
    from onestage.data.samples import SAMPLES
    from onestage.evaluation import PROTOCOLS
    from onestage.models import MODELS

    for page, words in (("protocols", PROTOCOLS), ("recipes", MODELS), ("recipes", POLICIES), ("data", SAMPLES)):
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        told([word for word in words if f"`{word}`" not in text], f"docs/{page}.md does not name these")


def test_docs_tell_the_size_of_each_model() -> None:
    from onestage import models

    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for word in set(models.MODELS) - {"darknet"}:  # whose size is its cfg's
        parameters = sum(parameter.numel() for parameter in models.build(word, 20).parameters())
        assert re.search(rf"^\| `{word}` \|.*\| {parameters:,} \|", page, re.MULTILINE), f"{word}: {parameters:,}"


def test_every_command_has_its_page() -> None:
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "PYTHONPATH": str(ROOT / "src")}
    call = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'onestage'; from onestage.cli import main; main()",
        "--help",
    ]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    listed = done.stdout[re.search(r"Commands", done.stdout).end() :]  # type: ignore[union-attr]
    verbs = set(re.findall(r"^[│ ]*([a-z]+)  ", listed, re.MULTILINE))
    assert "train" in verbs, listed
    commands = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    paged = set(re.findall(r"^## `onestage (\w+)`", commands, re.MULTILINE))
    told(sorted(verbs - paged), "docs/commands.md has no section for these: ## `onestage VERB`")
    told(sorted(paged - verbs), "docs/commands.md tells of verbs that do not exist")
    told([verb for verb in sorted(verbs) if f"| `onestage {verb}" not in README], "README.md's table lacks these verbs")


def test_commands_in_the_pages_have_known_keys() -> None:
    from onestage.cli import compare, data, predict, val, weights
    from onestage.cli.words import split_words
    from onestage.training.recipe import known_keys

    taken = {"train": set(known_keys()), "demo": set(known_keys())}
    taken |= {verb: set() for verb in ("runs", "report", "replay")}
    taken |= {
        name: {key for key, _, _ in module.KEYS}
        for name, module in zip(
            ("compare", "data", "predict", "val", "weights"), (compare, data, predict, val, weights), strict=True
        )
    }
    free = ("augmentation.options.", "options.", "loss.")
    problems, checked = [], 0
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for verb, rest in re.findall(r"^onestage (\w+) (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            line = re.sub(
                r"--(quick|dry-run|json|no-draw|common|details|explain-protocol|"
                r"(resume|out|gate|page|picture|step|draw) \S+)",
                "",
                rest.partition(" #")[0],
            )
            _, keys = split_words(shlex.split(line))
            problems += [
                f"{name(page)}: onestage {verb}: {key}"
                for key in keys
                if key not in taken[verb] and not key.startswith(free)
            ]
            checked += 1
    told(problems, "no such key; `onestage VERB --help` lists them")
    assert checked > 25


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{name(page)}: {target}")
    told(broken, "no such file")


def test_pages_load_nothing_from_elsewhere() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    assert "extra_javascript" not in settings
    assert "extra_css" not in settings
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    remote = [name(page) for page in pages if re.search(r"(!\[[^]]*\]\(|src=[\"'])https?:", page.read_text("utf-8"))]
    told(remote, "pictures come from this repository only")


# ---- what is installed


def test_everything_asked_for_is_pinned_within_its_bounds() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if re.match(r"\w.*==", line)]
    pins = {canonicalize_name(package): version for package, version in pairs}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    problems = []
    for requirement in map(Requirement, asked):
        if requirement.name == "onestage":
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None:
            problems.append(f"{requirement.name}: not in constraints.txt")
        elif not requirement.specifier.contains(pin, prereleases=True):
            problems.append(f"{requirement}: constraints.txt pins {pin}")
        if not requirement.name.startswith("types-") and not {">=", "<"} <= {s.operator for s in requirement.specifier}:
            problems.append(f"{requirement}: a lower and an upper bound are expected")
    told(problems, "pyproject.toml says what is asked for, constraints.txt pins what is tested")
    assert "torchvision" not in pins
    assert next(iter(pins)) == "torch"


def test_no_file_names_a_package_index() -> None:
    files = [ROOT / "constraints.txt", ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / ".ci" / "run"]
    named = [name(path) for path in files if re.search(r"index-url|find-links|https?://", path.read_text("utf-8"))]
    told(named, "packages come from the index that the user's pip is set to")
