"""What engines need of a detector: its network as it is served, and its priors at any input size."""

from __future__ import annotations

from onestage.deploy.engines.engine import Floats, Priors
from onestage.errors import ModelError
from onestage.models.detector import Detector
from onestage.models.served import Served
from onestage.models.ssd import Multibox


def priors_of(detector: Detector) -> Priors:
    """A function from an input size (width, height) to the detector's priors (P, 4) cx, cy, w, h in pixels, float32.

    It keeps the detector's own size as it is at this moment. Raises ModelError, now for a detector without priors,
    then for a size that the detector does not take.
    """
    if not isinstance(detector, Multibox):
        raise ModelError(f"{detector.name}: has no priors to decode from")
    size, own = detector.size, detector.priors.cpu().numpy()

    def at(wanted: tuple[int, int]) -> Floats:
        found: Floats = own if wanted == size else detector.priors_at(wanted)[0].cpu().numpy()
        return found

    return at


def served(detector: Detector) -> Served:
    """The detector as it is served; ModelError where it cannot be."""
    network = detector.served()
    assert isinstance(network, Served)  # noqa: S101  # what the method promises
    return network.eval()
