"""Checkpoints: finding a model's files, reading and writing weights, and the layouts of their names."""
