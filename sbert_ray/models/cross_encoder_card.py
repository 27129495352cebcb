"""The model card of cross-encoders."""

import json
from collections.abc import Sequence

_CARD = """\
---
tags:
- sentence-transformers
- cross-encoder
- reranker
pipeline_tag: {task}
library_name: sentence-transformers
{metadata}---

# {title}

A cross-encoder: it reads two texts together and gives {scores}.

```python
from sbert_ray import CrossEncoder  # or from sentence_transformers

model = CrossEncoder("{title}")
{usage}
```

Modules: {modules}. Longest pair: {max_seq_length} tokens.
"""

_PREDICT = """\
scores = model.predict([
    ("How many people live in Berlin?", "Berlin had 3,520,031 registered inhabitants in 2019."),
    ("How many people live in Berlin?", "Berlin is well known for its museums."),
])"""

_RANK = """
ranked = model.rank("How many people live in Berlin?", [
    "Berlin had 3,520,031 registered inhabitants in 2019.",
    "Berlin is well known for its museums.",
])"""


def cross_encoder_card(
    title: str, num_labels: int, modules: list[str], max_seq_length: int | None, train_datasets: Sequence[str]
) -> str:
    """Return a short model card with the hub's metadata."""
    datasets = "".join(f"- {json.dumps(name)}\n" for name in train_datasets)
    ranks = num_labels == 1
    return _CARD.format(
        task="text-ranking" if ranks else "text-classification",
        metadata=f"datasets:\n{datasets}" if datasets else "",
        title=title,
        scores="a score" if ranks else f"scores of {num_labels} labels",
        usage=_PREDICT + (_RANK if ranks else ""),
        modules=", ".join(modules),
        max_seq_length=max_seq_length,
    )
