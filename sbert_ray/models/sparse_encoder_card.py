"""The model card of sparse encoders."""

import json
from collections.abc import Sequence

_CARD = """\
---
tags:
- sentence-transformers
- sparse-encoder
- sparse
{splade}pipeline_tag: feature-extraction
library_name: sentence-transformers
{metadata}---

# {title}

A sparse encoder: texts to vectors of {dimension} dimensions, {active}, compared by {similarity} similarity.

```python
from sbert_ray import SparseEncoder  # or from sentence_transformers

model = SparseEncoder("{title}")
embeddings = model.encode(["The weather is lovely today.", "It's so sunny outside!"])
similarities = model.similarity(embeddings, embeddings)
{decode}```

Modules: {modules}. Longest input: {max_seq_length} tokens.
"""

_DECODE = """\
print(model.decode(embeddings, top_k=5))  # the tokens of most weight
"""


def sparse_encoder_card(
    title: str,
    dimension: int | None,
    max_active_dims: int | None,
    similarity: str | None,
    modules: list[str],
    max_seq_length: int | None,
    train_datasets: Sequence[str],
) -> str:
    """Return a short model card with the hub's metadata."""
    datasets = "".join(f"- {json.dumps(name)}\n" for name in train_datasets)
    has_tokens = "SparseAutoEncoder" not in modules
    return _CARD.format(
        splade="- splade\n" if "SpladePooling" in modules else "",
        metadata=f"datasets:\n{datasets}" if datasets else "",
        title=title,
        dimension=dimension,
        active="few of them not zero" if max_active_dims is None else f"at most {max_active_dims} of them not zero",
        similarity=similarity,
        decode=_DECODE if has_tokens else "",
        modules=", ".join(modules),
        max_seq_length=max_seq_length,
    )
