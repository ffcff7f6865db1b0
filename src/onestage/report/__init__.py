"""Plots, drawn boxes and self-contained pages, made from run folders alone."""
