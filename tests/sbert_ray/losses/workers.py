"""Processes that compute losses together, over gloo: started by test_gathered.py."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from sbert_ray.losses import CachedLoss, GatheredLoss, Loss
from tests.sbert_ray.losses.cases import CASES, Toy

SIZE = 12
"""Rows of the joint batch."""


def value_and_gradients(loss: Loss, model: torch.nn.Module, features, targets) -> dict[str, torch.Tensor]:
    """The loss under the name ``""``, and the gradients of the model's weights."""
    value = loss(features, targets)
    total = sum(value.values()) if isinstance(value, dict) else value
    total.backward()
    return {"": total.detach()} | {
        name.removeprefix("module."): weight.grad.clone() for name, weight in model.named_parameters()
    }


def main(rank: int, world_size: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder / 'rendezvous'}", rank=rank, world_size=world_size)
    share = SIZE // world_size
    found = {}
    for case in CASES:
        for is_cached in (False, True):
            model = DistributedDataParallel(Toy())
            loss: Loss = GatheredLoss(model, case.loss(model))
            loss = CachedLoss(model, loss, mini_batch_size=3) if is_cached else loss
            rows = (SIZE, rank * share, (rank + 1) * share)
            found[case.name, is_cached] = value_and_gradients(loss, model, case.features(*rows), case.targets(*rows))
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
