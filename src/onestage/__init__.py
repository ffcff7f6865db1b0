"""Trains one-stage object detectors and tells why they work or fail."""
