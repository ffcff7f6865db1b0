"""Trains one-stage object detectors and tells why they work or fail."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("onestage")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
