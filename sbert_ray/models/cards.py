"""The model cards of each type of model: short, with the hub's metadata."""

import json
from collections.abc import Sequence

_CARD = """\
---
tags:
- sentence-transformers
{tags}pipeline_tag: {task}
library_name: sentence-transformers
{datasets}---

# {title}

{summary}

```python
from sbert_ray import {model_type}  # or from sentence_transformers

model = {model_type}("{title}")
{usage}```

Modules: {modules}. Longest {unit}: {max_seq_length} tokens.
"""

_EMBED = """\
embeddings = model.encode(["The weather is lovely today.", "It's so sunny outside!"])
similarities = model.similarity(embeddings, embeddings)
"""

_DECODE = """\
print(model.decode(embeddings, top_k=5))  # the tokens of most weight
"""

_PREDICT = """\
scores = model.predict([
    ("How many people live in Berlin?", "Berlin had 3,520,031 registered inhabitants in 2019."),
    ("How many people live in Berlin?", "Berlin is well known for its museums."),
])
"""

_RANK = """\
ranked = model.rank("How many people live in Berlin?", [
    "Berlin had 3,520,031 registered inhabitants in 2019.",
    "Berlin is well known for its museums.",
])
"""


def sentence_transformer_card(
    title: str,
    dimension: int | None,
    similarity: str | None,
    modules: list[str],
    max_seq_length: int | None,
    train_datasets: Sequence[str],
) -> str:
    """Return the card of a SentenceTransformer."""
    return _CARD.format(
        tags=_items(["feature-extraction", "sentence-similarity"]),
        task="sentence-similarity",
        datasets=_datasets(train_datasets),
        title=title,
        summary=f"A sentence embedding model: texts to vectors of {dimension} dimensions, compared by {similarity}"
        " similarity.",
        model_type="SentenceTransformer",
        usage=_EMBED,
        modules=", ".join(modules),
        unit="input",
        max_seq_length=max_seq_length,
    )


def sparse_encoder_card(
    title: str,
    dimension: int | None,
    max_active_dims: int | None,
    similarity: str | None,
    modules: list[str],
    max_seq_length: int | None,
    train_datasets: Sequence[str],
) -> str:
    """Return the card of a SparseEncoder."""
    active = "few of them not zero" if max_active_dims is None else f"at most {max_active_dims} of them not zero"
    has_tokens = "SparseAutoEncoder" not in modules
    return _CARD.format(
        tags=_items(["sparse-encoder", "sparse", *(["splade"] if "SpladePooling" in modules else [])]),
        task="feature-extraction",
        datasets=_datasets(train_datasets),
        title=title,
        summary=f"A sparse encoder: texts to vectors of {dimension} dimensions, {active}, compared by {similarity}"
        " similarity.",
        model_type="SparseEncoder",
        usage=_EMBED + (_DECODE if has_tokens else ""),
        modules=", ".join(modules),
        unit="input",
        max_seq_length=max_seq_length,
    )


def cross_encoder_card(
    title: str, num_labels: int, modules: list[str], max_seq_length: int | None, train_datasets: Sequence[str]
) -> str:
    """Return the card of a CrossEncoder."""
    ranks = num_labels == 1
    scores = "a score" if ranks else f"scores of {num_labels} labels"
    return _CARD.format(
        tags=_items(["cross-encoder", "reranker"]),
        task="text-ranking" if ranks else "text-classification",
        datasets=_datasets(train_datasets),
        title=title,
        summary=f"A cross-encoder: it reads two texts together and gives {scores}.",
        model_type="CrossEncoder",
        usage=_PREDICT + (_RANK if ranks else ""),
        modules=", ".join(modules),
        unit="pair",
        max_seq_length=max_seq_length,
    )


def _items(values: Sequence[str]) -> str:
    return "".join(f"- {value}\n" for value in values)


def _datasets(names: Sequence[str]) -> str:
    return f"datasets:\n{_items([json.dumps(name) for name in names])}" if names else ""
