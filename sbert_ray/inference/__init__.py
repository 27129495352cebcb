"""The engine under `encode`: tokenize, sort by true length, cut batches by a token budget, run."""
