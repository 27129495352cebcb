"""Measurements behind the figures of the README, and the real texts that they use."""
