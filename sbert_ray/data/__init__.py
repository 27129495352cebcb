"""Datasets: input of any kind cut into units of work, and output committed unit by unit. Knows no torch."""
