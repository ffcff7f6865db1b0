"""One PASCAL VOC annotation file: XML read without entities, with line numbers."""

from __future__ import annotations

import re
import xml.sax.handler
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax import SAXException
from xml.sax.xmlreader import AttributesImpl

from defusedxml import DefusedXmlException
from defusedxml.sax import parseString

from onestage.data.formats.rows import number
from onestage.errors import DataError

DEEPEST = 50  # levels; VOC uses four
_NATIVE = ("utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1", "latin-1")


class RefusedXmlError(DataError):
    """The XML declares a document type or entities; nothing of it was expanded."""


@dataclass(slots=True)
class Node:
    """One element: its tag, the text directly in it, the line it starts on, its children in order."""

    tag: str
    line: int
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def child(self, tag: str) -> Node | None:
        """The first child of that tag."""
        return next((node for node in self.children if node.tag == tag), None)

    def value(self, tag: str) -> str:
        """The text of the first child of that tag, stripped; '' where there is none."""
        node = self.child(tag)
        return "" if node is None else node.text.strip()


@dataclass(slots=True)
class VocObject:
    """One <object>: class name, corners as written (NaN for what is no number), flags, line of the element."""

    name: str
    corners: tuple[float, float, float, float] | None  # None: no <bndbox>
    raw: str
    line: int
    difficult: bool
    truncated: float
    occluded: float

    @property
    def sound(self) -> bool:
        """Whether it has a class and a box with area in which all corners are finite numbers."""
        return bool(self.name) and self.corners is not None and (
            -1e9 < self.corners[0] < self.corners[2] < 1e9 and -1e9 < self.corners[1] < self.corners[3] < 1e9
        )  # fmt: skip


@dataclass(slots=True)
class VocFile:
    """One annotation file: what it says of its image, and its objects in order; `error` where it cannot be used."""

    path: Path
    filename: str = ""
    width: float = 0.0
    height: float = 0.0
    objects: list[VocObject] = field(default_factory=list)
    error: DataError | None = None


def read_file(path: Path) -> VocFile:
    """Reads one file; whatever is wrong with the XML as a whole stands in `error`, never an exception."""
    try:
        root = parse(path.read_bytes())
        if root.tag != "annotation":
            raise DataError(f"the first element is <{root.tag}>, expected <annotation>")
    except OSError as error:
        return VocFile(path, error=DataError(f"cannot be opened: {error.strerror}"))
    except DataError as error:
        return VocFile(path, error=error)
    size = root.child("size") or Node("size", 0)
    objects = [_object(node) for node in root.children if node.tag == "object"]
    return VocFile(path, root.value("filename"), number(size.value("width")), number(size.value("height")), objects)


def _object(node: Node) -> VocObject:
    box = node.child("bndbox")
    corners, raw = None, "<bndbox> is missing"
    if box is not None:
        texts = [box.value(tag) for tag in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = (number(text) for text in texts)
        corners, raw = (x1, y1, x2, y2), f"({', '.join(text or '?' for text in texts)})"
    truncated, occluded = (_flag(node.value(tag)) for tag in ("truncated", "occluded"))
    difficult = _flag(node.value("difficult")) > 0
    return VocObject(node.value("name"), corners, raw, node.line, difficult, truncated, occluded)


def _flag(text: str) -> float:
    # VOC writes 0 and 1, some tools a share of the object; "Unspecified" and other words mean that nothing is known
    value = number(text)
    return value if 0 <= value < 1e9 else 0.0


def parse(data: bytes) -> Node:
    """The tree of an XML document. Raises RefusedXmlError for a DOCTYPE or entities, DataError for what is no XML."""
    builder = _Builder()
    try:
        parseString(_decodable(data), builder, forbid_dtd=True)
    except DefusedXmlException as error:
        kind = type(error).__name__.replace("Forbidden", "").replace("DTD", "DOCTYPE")
        raise RefusedXmlError(f"the XML is refused: it declares {kind}, which annotations never need") from error
    except SAXException as error:
        line = getattr(error, "getLineNumber", lambda: None)()
        raise DataError(f"not well-formed XML{f' at line {line}' if line else ''}: {error.getMessage()}") from error
    except (ValueError, LookupError) as error:
        raise DataError(f"cannot be decoded: {error}") from error
    if builder.root is None:
        raise DataError("the file is empty")
    return builder.root


def _decodable(data: bytes) -> bytes:
    # expat knows few encodings; files by Chinese and Japanese tools name others, which Python knows
    found = re.match(rb"""(?:\xef\xbb\xbf)?\s*<\?xml[^>]*encoding=["']([A-Za-z0-9._-]+)["'][^>]*\?>""", data)
    if found and found[1].decode().lower() not in _NATIVE:
        return data[found.end() :].decode(found[1].decode()).encode()
    return data.lstrip() if data[:1].isspace() else data


class _Builder(xml.sax.handler.ContentHandler):
    def __init__(self) -> None:
        super().__init__()
        self.root: Node | None = None
        self._open: list[Node] = []

    def startElement(self, name: str, attrs: AttributesImpl) -> None:  # noqa: N802 (SAX's name)
        node = Node(name, int(self._locator.getLineNumber() or 0))  # type: ignore[attr-defined]
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)
        if len(self._open) > DEEPEST:
            raise DataError(f"more than {DEEPEST} elements inside each other: not an annotation")

    def endElement(self, name: str) -> None:  # noqa: N802
        self._open.pop()

    def characters(self, content: str) -> None:
        self._open[-1].text += content
