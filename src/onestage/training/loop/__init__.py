"""From a batch to moved weights: the gradient of a step, the optimiser, norms, averages, evidence."""
