"""Processes that compute losses together, over gloo: started by test_gathered.py."""

import random
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sbert_ray import losses
from sbert_ray.losses import CachedLoss, GatheredLoss, Loss, MatryoshkaLoss
from sbert_ray.losses.contrastive import DIRECTIONS
from tests.sbert_ray.losses.cases import CASES, Routed, Toy
from tests.sbert_ray.losses.compare import columns_of

SIZE = 12
"""Rows of the joint batch."""


def value_and_gradients(loss: Loss, model: torch.nn.Module, features, targets) -> dict[str, torch.Tensor]:
    """The loss under the name ``""``, and the gradients of the model's weights."""
    value = loss(features, targets)
    total = sum(value.values()) if isinstance(value, dict) else value
    total.backward()
    return {"": total.detach()} | {
        name.removeprefix("module."): weight.grad.clone()
        for name, weight in model.named_parameters()
        if weight.grad is not None
    }


FLAGGED = [
    ("MultipleNegativesRankingLoss", {}),
    ("MultipleNegativesRankingLoss", {"directions": DIRECTIONS}),
    ("CachedMultipleNegativesRankingLoss", {"mini_batch_size": 3}),
    ("SparseMultipleNegativesRankingLoss", {}),
]
"""Losses that gather by an option of their own, as the peer's do."""


def compared(rank: int, share: int) -> list[list[torch.Tensor]]:
    """For each of `FLAGGED` the value and the gradients of this worker's embeddings, ours and then the peer's."""
    import sentence_transformers.sentence_transformer.losses as dense
    import sentence_transformers.sparse_encoder.losses as sparse

    found = []
    for name, options in FLAGGED:
        peer = sparse if name.startswith("Sparse") else dense
        # The peer's cached one has no other way to take embeddings than a whole model.
        peer_name, peer_options = name.removeprefix("Cached"), {k: v for k, v in options.items() if "mini" not in k}
        for module, called, given in ((losses, name, options), (peer, peer_name, peer_options)):
            columns = [column[rank * share : (rank + 1) * share] for column in columns_of(3, SIZE, 6)]
            columns = [column.requires_grad_() for column in columns]
            loss = getattr(module, called)(None, gather_across_devices=True, **given)
            value = loss.compute_loss_from_embeddings(columns, None)
            value.backward()
            found.append([value.detach(), *(column.grad for column in columns)])
    return found


ROUTED = {
    "all": {},
    "frozen documents": {"frozen": "document"},
    "frozen queries": {"frozen": "query"},
}
"""Ways to train a model whose columns have weights of their own."""


def routed(model: torch.nn.Module, rows: tuple[int, ...] = (SIZE,), **options: Any) -> dict[str, torch.Tensor]:
    """The loss and the gradients of queries and documents, cached if ``options`` say so."""
    case = next(case for case in CASES if case.name == "MultipleNegativesRankingLoss")
    features = [
        column | {"task": task}
        for column, task in zip(case.features(*rows), ("query", "document", "document"), strict=True)
    ]
    loss: Loss = GatheredLoss(model, case.loss(model))
    return value_and_gradients(CachedLoss(model, loss, **options) if options else loss, model, features, None)


def draws(rank: int) -> dict[str, Any]:
    """What workers of other random numbers draw, and what becomes of labels that do not fit each other's."""
    random.seed(rank)
    model = Toy()
    loss = MatryoshkaLoss(model, GatheredLoss(model, losses.MultipleNegativesRankingLoss(model)), range(1, 9), None, 2)
    drawn = []
    for _ in range(5):
        loss.draw()
        drawn.append(list(loss._drawn))
    columns = [torch.randn(3, 4) for _ in range(3)]
    try:
        GatheredLoss(None, losses.MarginMSELoss(None)).compute_loss_from_embeddings(
            columns, torch.zeros(3, 1 + rank % 2)
        )
    except ValueError as error:
        return {"drawn": drawn, "error": str(error)}
    return {"drawn": drawn}


def main(rank: int, world_size: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=world_size)
    share = SIZE // world_size
    found: dict[Any, Any] = {}
    rows = (SIZE, rank * share, (rank + 1) * share)
    for case in CASES:
        for is_cached in (False, True):
            model = DistributedDataParallel(Toy())
            loss: Loss = GatheredLoss(model, case.loss(model))
            loss = CachedLoss(model, loss, mini_batch_size=3) if is_cached else loss
            found[case.name, is_cached] = value_and_gradients(loss, model, case.features(*rows), case.targets(*rows))
    for name, options in ROUTED.items():
        inner = Routed(options.get("frozen", ""))
        model = DistributedDataParallel(inner)
        found["routed", name] = routed(model, rows, mini_batch_size=3)
    model = DistributedDataParallel(Toy(), static_graph=True)
    case = next(case for case in CASES if case.name == "MultipleNegativesRankingLoss")
    loss = CachedLoss(model, GatheredLoss(model, case.loss(model)), mini_batch_size=3)
    for _ in range(3):  # it learns in the first one
        model.zero_grad()
        found["static graph"] = value_and_gradients(loss, model, case.features(*rows), None)
    found["draws"] = draws(rank)
    found["compared"] = compared(rank, share)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
