"""What engines need of a detector: its network as it is served."""

from __future__ import annotations

from onestage.models.detector import Detector
from onestage.models.served import Served


def served(detector: Detector) -> Served:
    """The detector as it is served; ModelError where it cannot be."""
    network = detector.served()
    assert isinstance(network, Served)  # noqa: S101  # what the method promises
    return network.eval()
