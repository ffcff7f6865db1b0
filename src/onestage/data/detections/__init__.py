"""Detection files of any program, read as the images and classes of a dataset."""

from onestage.data.detections.coco_results import coco_labels, coco_results, own_labels, read_detections

__all__ = ["coco_labels", "coco_results", "own_labels", "read_detections"]
