"""What every page is made of: templates, style, script, figures and the library that draws them."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs


def fill(name: str, context: Mapping[str, Any]) -> str:
    """The template `name` of this folder as a page; style and script are put in, values are escaped."""
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(part),
    )  # fmt: skip
    style = {"css": Markup(part("page.css")), "script": Markup(part("page.js"))}  # noqa: S704
    return environment.get_template(name).render({**style, **context})


def embedded(figures: Mapping[str, Any]) -> dict[str, Markup]:
    """Figures as JSON for a page's script elements; those without data are left out."""
    return {
        name: Markup(_script_json(figure.to_json())) for name, figure in figures.items() if figure.data  # noqa: S704
    }  # fmt: skip


@lru_cache(maxsize=1)
def library() -> str:
    """plotly.js, gzipped and in base64: 2 MB instead of 4.8; the page unpacks it itself."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()


def part(name: str) -> str:
    """A file of this folder as text."""
    return (files("onestage.report") / name).read_text(encoding="utf-8")


def _script_json(text: str) -> str:
    """JSON that no browser can take for the end of its script element."""
    letters = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"}
    json.loads(text)
    return "".join(letters.get(letter, letter) for letter in text)
