"""The losses of YOLO networks: which boxes answer for which truths, and what is summed."""
