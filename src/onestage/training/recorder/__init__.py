"""The flight recorder: what the last steps saw, and who is to blame when one goes wrong."""

from onestage.training.recorder.recorder import Recorder, spikes_for

__all__ = ["Recorder", "spikes_for"]
