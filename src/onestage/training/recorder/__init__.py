"""The flight recorder: what the last steps saw, and who is to blame when one goes wrong."""

from onestage.training.recorder.recorder import Decision, Recorder, gravest, spikes_for

__all__ = ["Decision", "Recorder", "gravest", "spikes_for"]
