"""A replayed step as a folder: its images with truths and positives, a page, and all numbers as JSON."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from onestage.experiments.storage import as_json, make_folder, write_bytes
from onestage.report.batch_sheet import SheetImage, batch_sheet
from onestage.report.draw import Image
from onestage.report.template import fill

# So many images are drawn on the sheet, those with the largest gradient.
DRAWN = 32


def write_replay(
    folder: Path, told: Mapping[str, Any], pictures: Sequence[SheetImage], classes: Sequence[str], run: str
) -> Path:
    """Write replay.json, index.html, batch.jpg, and each image as the network saw it; the page's path.

    `told` is `Replayed.as_dict()`, `pictures` are the batch's images in its order. The page needs no other file.
    Raises StorageError where a file cannot be written.
    """
    make_folder(folder / "images")
    write_bytes(folder / "replay.json", as_json(told).encode())
    for place, picture in enumerate(pictures):
        stem = re.sub(r"[^A-Za-z0-9.-]+", "_", Path(picture.name).stem)[:60]
        write_bytes(folder / "images" / f"{place + 1:03d}-{stem}.png", png(picture.image))
    order = [image["place"] for image in sorted(told["images"], key=lambda image: -_rank(image["gradient"]))]
    shown = [pictures[place] for place in (order or range(len(pictures)))[:DRAWN]]
    sheet = jpeg(batch_sheet(shown, classes, f"{run}, step {told['step']}: the largest gradient first"))
    write_bytes(folder / "batch.jpg", sheet)
    page = folder / "index.html"
    write_bytes(page, _page(told, sheet, run).encode())
    return page


def png(image: Image) -> bytes:
    """uint8 RGB (H, W, 3) as a PNG file, every pixel kept."""
    return bytes(cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1])


def jpeg(image: Image) -> bytes:
    """uint8 RGB (H, W, 3) as a JPEG file."""
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1])


def image_rows(told: Mapping[str, Any], most: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table of images, the largest gradient first."""
    images = sorted(told["images"], key=lambda image: -_rank(image["gradient"]))[:most]
    parts = list(images[0]["parts"]) if images else []
    columns = ["image", *(f"{part} loss" for part in parts), "loss", "truths", "positives", "gradient", "of the step"]
    names = _names(told)
    rows = [
        [names[image["place"]], *(number(image["parts"][part]) for part in parts), number(image["loss"]),
         str(image["truths"]), str(image["positives"]), number(image["gradient"]),
         "–" if image["share"] is None else f"{image['share']:.1%}"]
        for image in images
    ]  # fmt: skip
    return columns, rows


def prior_rows(told: Mapping[str, Any], most: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table of the priors with the largest loss."""
    names = _names(told)
    parts = list(told["priors"][0]["parts"]) if told["priors"] else []
    columns = ["image", "prior", "box", "answers for", "level", *(f"{part} loss" for part in parts), "loss"]
    rows = [
        [names[prior["place"]], str(prior["prior"]), " ".join(str(round(v)) for v in prior["box"]),
         "background" if prior["truth"] is None else f"truth {prior['truth']}", str(prior["level"]),
         *(number(prior["parts"][part]) for part in parts), number(prior["loss"])]
        for prior in told["priors"][:most]
    ]  # fmt: skip
    return columns, rows


def verdict(told: Mapping[str, Any]) -> str:
    """Whether the step came again, in words."""
    if told["identical"]:
        return "Identical to the original step, bit for bit."
    if told["recorded"] is None:
        return "The original step was not recorded (the run stopped in it): this is what it does."
    why = "; ".join(told["reasons"]) or "the run's code or data may have changed since"
    count = len(told["differences"])
    return f"Not bit for bit the original step, {count} value{'s' * (count != 1)} differ: {why}."


def number(value: float) -> str:
    """Four digits, or what it is instead of a number."""
    return f"{value:.4g}" if np.isfinite(value) else str(value)


def _names(told: Mapping[str, Any]) -> dict[int, str]:
    """How the images are called: by their files' names, by their paths where two have the same."""
    paths = {image["place"]: Path(image["file"]) for image in told["images"]}
    unique = len({path.name for path in paths.values()}) == len(set(paths.values()))
    return {place: path.name if unique else str(path) for place, path in paths.items()}


def _rank(value: float) -> float:
    return value if np.isfinite(value) else np.inf


def _page(told: Mapping[str, Any], sheet: bytes, run: str) -> str:
    context = {
        "run": run, "step": told["step"], "epoch": told["epoch"] + 1, "start": told["from_step"],
        "verdict": verdict(told), "differences": told["differences"],
        "headline": _headline(told), "images": image_rows(told), "priors": prior_rows(told),
        "parts": [(name, number(norm)) for name, norm in told["by_part"].items()],
        "terms": [
            (f"prior {prior['prior']} of image {prior['place'] + 1}", list(prior["terms"].items()))
            for prior in told["priors"][:3] if prior["terms"]
        ],
        "sheet": base64.b64encode(sheet).decode(), "number": number,
    }  # fmt: skip
    return fill("replay.html.j2", context)


def _headline(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    row = told["row"]
    facts = [("Loss", number(row["loss"])), *((f"{name} loss", number(value)) for name, value in row["raw"].items())]
    facts += [("Gradient", number(row["grad_norm"])), ("Positives", f"{row['positives']:,}")]
    if row["lr"]:
        facts.append(("Learning rate", number(max(row["lr"].values()))))
    return [*facts, ("Images", str(row["images"]))]
