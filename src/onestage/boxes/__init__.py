"""Arithmetic of rectangles; knows no file and no network."""
