"""What passes between rooms: numpy records, checked when they are made.

Boxes are xyxy pixels of the original image, half-open, origin top left, float64: what a file says is what is judged.
Labels are 0 … C-1 without background.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

ImageId = int | str
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Severity = Literal["error", "warning", "note"]


def _boxes(value: ArrayLike, owner: str) -> FloatArray:
    boxes = np.array(value, dtype=np.float64)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{owner}.boxes: expected shape (N, 4), got {boxes.shape}")
    return boxes


def _column(value: ArrayLike | None, n: int, dtype: type, owner: str, name: str) -> NDArray[Any]:
    column: NDArray[Any] = np.zeros(n, dtype) if value is None else np.array(value, dtype=dtype).reshape(-1)
    if len(column) != n:
        raise ValueError(f"{owner}.{name}: expected {n} values, one per box, got {len(column)}")
    return column


def _extra(columns: Mapping[str, ArrayLike], n: int, owner: str) -> dict[str, NDArray[Any]]:
    extra = {key: np.asarray(column) for key, column in columns.items()}
    for key, column in extra.items():
        if len(column) != n:
            raise ValueError(f"{owner}.extra[{key!r}]: expected {n} values, got {len(column)}")
    return extra


@dataclass(frozen=True)
class ImageInfo:
    """One picture on disk: its id, where it lies, its size in pixels as a viewer shows it (0 x 0: not known)."""

    id: ImageId
    path: Path
    width: int
    height: int
    sequence: str | None = None  # the video that it is a frame of, whose frames a split must not part

    def __post_init__(self) -> None:
        if (self.width < 1 or self.height < 1) and (self.width, self.height) != (0, 0):
            raise ValueError(f"ImageInfo {self.id!r}: expected a positive size, got {self.width}x{self.height}")


@dataclass(frozen=True, eq=False)
class Annotations:
    """The truth of one image: boxes (N, 4), labels (N,), and what the judge must know of each box.

    `difficult` is VOC's flag, `ignore` marks regions that count neither way, `crowd` is COCO's iscrowd. `extra`
    keeps other columns of the file, one value or row per box ("area", "truncated", "line", "ellipse", …); "region",
    with `ignore`, marks areas where objects of any class count neither way, so that the label says nothing.
    """

    boxes: FloatArray
    labels: IntArray
    difficult: BoolArray = None  # type: ignore[assignment]  # None becomes all False
    ignore: BoolArray = None  # type: ignore[assignment]
    crowd: BoolArray = None  # type: ignore[assignment]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        boxes = _boxes(self.boxes, "Annotations")
        put = object.__setattr__
        put(self, "boxes", boxes)
        put(self, "labels", _column(self.labels, len(boxes), np.int64, "Annotations", "labels"))
        for name in ("difficult", "ignore", "crowd"):
            put(self, name, _column(getattr(self, name), len(boxes), np.bool_, "Annotations", name))
        put(self, "extra", _extra(self.extra, len(boxes), "Annotations"))

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> Annotations:
        """The truth of an image without objects."""
        return cls(np.zeros((0, 4)), np.zeros(0, np.int64))

    def take(self, keep: NDArray[Any], boxes: FloatArray | None = None) -> Annotations:
        """The rows that `keep` (a mask or indices) picks, with new `boxes` (rows as kept) where they moved."""
        return Annotations(
            self.boxes[keep] if boxes is None else boxes, self.labels[keep], self.difficult[keep],
            self.ignore[keep], self.crowd[keep], {key: column[keep] for key, column in self.extra.items()},
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector says of one image: boxes (M, 4), labels (M,), scores (M,), highest score first.

    Ours score in [0, 1], others as they like. Rows of equal score keep their order. `extra` keeps other columns of the
    file, a value per row ("row": the place among the rows of its image, from 0; "place": that among all rows, where one
    file holds many images; "ellipse": (M, 5), …). Raises ValueError for scores that are not finite.
    """

    boxes: FloatArray
    labels: IntArray
    scores: FloatArray
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        boxes = _boxes(self.boxes, "Detections")
        labels = _column(self.labels, len(boxes), np.int64, "Detections", "labels")
        scores = _column(self.scores, len(boxes), np.float64, "Detections", "scores")
        bad = ~np.isfinite(scores)
        if bad.any():
            raise ValueError(f"Detections.scores: expected finite numbers, got {scores[bad][0]} in {bad.sum()} rows")
        extra = _extra(self.extra, len(boxes), "Detections")
        order = np.argsort(-scores, kind="stable")
        for name, column in (("boxes", boxes), ("labels", labels), ("scores", scores)):
            object.__setattr__(self, name, column[order])
        object.__setattr__(self, "extra", {key: column[order] for key, column in extra.items()})

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> Detections:
        """The answer for an image in which nothing was found."""
        return cls(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))

    def above(self, score: float) -> Detections:
        """Only the rows whose score is at least `score`."""
        return self.take(self.scores >= score)

    def take(self, keep: NDArray[Any]) -> Detections:
        """The rows that `keep` (a mask or indices) picks."""
        extra = {key: column[keep] for key, column in self.extra.items()}
        return Detections(self.boxes[keep], self.labels[keep], self.scores[keep], extra)


@dataclass(frozen=True)
class ImageTransform:
    """How an image became the network's input: x_net = x * scale_x + pad_x, likewise y. Pixels throughout."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    pad_x: float = 0.0
    pad_y: float = 0.0

    def to_net(self, boxes: ArrayLike) -> FloatArray:
        """Boxes (N, 4) of the image as boxes of the network's input."""
        return _boxes(boxes, "ImageTransform.to_net") * self._scales() + self._pads()

    def to_image(self, boxes: ArrayLike) -> FloatArray:
        """Boxes (N, 4) of the network's input as boxes of the image; the inverse of `to_net`."""
        return (_boxes(boxes, "ImageTransform.to_image") - self._pads()) / self._scales()

    def _scales(self) -> FloatArray:
        return np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y])

    def _pads(self) -> FloatArray:
        return np.array([self.pad_x, self.pad_y, self.pad_x, self.pad_y])


@dataclass(frozen=True, eq=False)
class Batch:
    """What the loader hands to the loop.

    `images` is RGB (B, 3, H, W), uint8 as our loader makes it or float32 in 0 … 255, a view on (B, H, W, 3) memory:
    channels-last for torch. `annotations` hold boxes in pixels of the input, `seeds` are the augmentation seeds.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    annotations: Sequence[Annotations]
    transforms: Sequence[ImageTransform]
    ids: Sequence[ImageId]
    seeds: Sequence[int]

    def __post_init__(self) -> None:
        shape, kind = self.images.shape, self.images.dtype
        if len(shape) != 4 or shape[1] != 3 or kind not in (np.uint8, np.float32):
            raise ValueError(f"Batch.images: expected uint8 or float32 (B, 3, H, W), got {kind} {shape}")
        for name in ("annotations", "transforms", "ids", "seeds"):
            if (got := len(getattr(self, name))) != len(self.images):
                raise ValueError(f"Batch.{name}: expected {len(self.images)} entries, got {got}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Metric:
    """One number with its name, protocol, class (None: over all), how many truths or images it rests on, interval."""

    protocol: str
    name: str
    value: float
    n: int
    class_name: str | None = None
    interval: tuple[float, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON; an undefined value becomes null."""
        return {
            "protocol": self.protocol, "name": self.name, "class": self.class_name,
            "value": None if np.isnan(self.value) else float(self.value), "n": int(self.n),
            "interval": None if self.interval is None else [float(end) for end in self.interval],
        }  # fmt: skip


@dataclass(frozen=True)
class Metrics:
    """A judged result: rows of Metric, looked up by name, protocol and class."""

    rows: tuple[Metric, ...]

    def __iter__(self) -> Iterator[Metric]:
        return iter(self.rows)

    def __add__(self, other: Metrics) -> Metrics:
        return Metrics(self.rows + other.rows)

    def row(self, name: str, protocol: str | None = None, class_name: str | None = None) -> Metric:
        """The first row of that name, protocol and class; KeyError names what there is."""
        for metric in self.rows:
            if metric.name == name and metric.class_name == class_name and protocol in (None, metric.protocol):
                return metric
        there = sorted({f"{metric.protocol}/{metric.name}" for metric in self.rows})
        raise KeyError(f"no metric {name!r} (protocol {protocol}, class {class_name}); there are: {', '.join(there)}")

    def value(self, name: str, protocol: str | None = None, class_name: str | None = None) -> float:
        """The value of `row(name, protocol, class_name)`."""
        return self.row(name, protocol, class_name).value

    def as_list(self) -> list[dict[str, Any]]:
        """All rows as JSON."""
        return [metric.as_dict() for metric in self.rows]

    @classmethod
    def from_list(cls, rows: Sequence[Mapping[str, Any]]) -> Metrics:
        """The inverse of `as_list`."""
        return cls(tuple(_metric(row) for row in rows))


def _metric(row: Mapping[str, Any]) -> Metric:
    value = float("nan") if row["value"] is None else row["value"]
    interval = None if row.get("interval") is None else tuple(row["interval"])
    return Metric(row["protocol"], row["name"], value, row["n"], row.get("class"), interval)


@dataclass(frozen=True)
class Where:
    """The place a finding speaks of; every part may be unknown."""

    file: str | None = None
    line: int | None = None
    image: ImageId | None = None
    box: tuple[float, float, float, float] | None = None
    step: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else (self.file or "")
        parts = [place] if place else []
        if self.image is not None and str(self.image) not in place:
            parts.append(f"image {self.image}")
        if self.box is not None:
            parts.append(f"box ({', '.join(f'{v:g}' for v in self.box)})")
        if self.step is not None:
            parts.append(f"step {self.step}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Finding:
    """Something noticed: where, what, what it would do, and the remedy; `code` is a stable kebab-case word."""

    code: str
    severity: Severity
    where: Where
    what: str
    consequence: str = ""
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The finding as JSON."""
        where = {key: value for key, value in vars(self.where).items() if value is not None}
        return {
            "code": self.code, "severity": self.severity, "where": where, "what": self.what,
            "consequence": self.consequence, "remedy": self.remedy, "evidence": dict(self.evidence),
        }  # fmt: skip
