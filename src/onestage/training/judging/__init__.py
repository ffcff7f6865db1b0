"""Judging while a run goes and when it is done: detections on every image, losses, scores."""
