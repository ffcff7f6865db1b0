"""The losses of YOLO networks, by name: `darknet`, `ratio`, `per-scale`."""
