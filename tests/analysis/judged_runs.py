"""Judged run folders and detection files on one small made set, without training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onestage.data.detections.coco_json import coco_results
from onestage.experiments.run import Run
from onestage.experiments.truth import write_truth
from onestage.records import Annotations, Detections, ImageId, ImageInfo

CLASSES = ("cat", "dog")


@dataclass
class Set:
    """Images with two objects each; detectors that find a share of them."""

    truths: dict[ImageId, Annotations]
    classes: tuple[str, ...] = CLASSES

    @classmethod
    def made(cls, images: int = 40, seed: int = 0) -> Set:
        rng = np.random.default_rng(seed)
        truths: dict[ImageId, Annotations] = {}
        for image in range(1, images + 1):
            corner = np.array([[0.0, 0.0], [100.0, 100.0]]) + rng.integers(0, 20, (2, 2))
            truths[image] = Annotations(np.c_[corner, corner + 50], np.array([0, 1]))
        return cls(truths)

    def found(self, share: float, seed: int = 0, floor: float = 0.02) -> dict[ImageId, Detections]:
        """Detections that hit each object with probability `share`, and else beside it; scores from `floor`."""
        rng = np.random.default_rng(seed)
        result = {}
        for image, truth in self.truths.items():
            away = np.where(rng.random(len(truth)) < share, 0.0, 300.0)[:, None]
            scores = np.maximum(rng.random(len(truth)), floor)
            scores[:1] = floor if image == 1 else scores[:1]
            result[image] = Detections(truth.boxes + away, truth.labels, scores)
        return result

    def run(
        self, root: Path, name: str, found: dict[ImageId, Detections], floor: float = 0.01, iou: float = 0.5,
        protocols: Sequence[str] = ("voc07", "voc10", "coco"),
    ) -> Run:  # fmt: skip
        """A run folder as training leaves it, as far as judging goes."""
        run = Run.create(root, name)
        run.write_recipe({"validation": {"iou": iou, "score": floor}})
        run.write_predictions(coco_results(found))
        run.write_metrics({"protocols": list(protocols), "score_floor": floor, "rows": []})
        write_truth(run, self.infos(), self.truths, self.classes)
        run.finish()
        return run

    def infos(self) -> list[ImageInfo]:
        return [ImageInfo(image, Path(f"/nowhere/{image}.jpg"), 500, 500) for image in self.truths]

    def coco_file(self, path: Path) -> Path:
        """The truth as a COCO file with category ids of its own: 30 and 60."""
        annotations = [
            {"id": 2 * image + k, "image_id": image, "category_id": 30 * (int(label) + 1), "iscrowd": 0,
             "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]], "area": (box[2] - box[0]) * (box[3] - box[1])}
            for image, truth in self.truths.items()
            for k, (box, label) in enumerate(zip(truth.boxes.tolist(), truth.labels, strict=True))
        ]  # fmt: skip
        images = [{"id": i, "file_name": f"{i}.jpg", "width": 500, "height": 500} for i in self.truths]
        categories = [{"id": 30 * (k + 1), "name": name} for k, name in enumerate(self.classes)]
        path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
        return path

    def detection_file(self, path: Path, found: dict[ImageId, Detections]) -> Path:
        """Detections as a COCO results list with the ids of `coco_file`."""
        rows = [{**row, "category_id": 30 * row["category_id"]} for row in coco_results(found)]
        path.write_text(json.dumps(rows))
        return path
