"""Networks of darknet's .cfg and .weights: YOLOv3 and its kin, as darknet computes them."""
