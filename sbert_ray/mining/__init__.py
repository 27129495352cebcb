"""Mining: the best pairs among embeddings, as functions of arrays and tensors, without files."""

from sbert_ray.mining.paraphrase import paraphrase_mining, paraphrase_mining_embeddings

__all__ = ["paraphrase_mining", "paraphrase_mining_embeddings"]
