"""The priors of a detector at any input size, as engines need them."""

from __future__ import annotations

from onestage.deploy.engines.engine import Floats, Priors
from onestage.errors import ModelError
from onestage.models.detector import Detector
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


def takes_any_size(detector: Detector) -> bool:
    """Whether the detector takes images of other sizes than its own."""
    width, height = detector.size
    try:
        priors_of(detector)((width + 32, height + 32))
    except ModelError:
        return False
    return True
