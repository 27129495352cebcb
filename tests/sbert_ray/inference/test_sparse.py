"""Sparse rows by dense arithmetic, and batches that never make a dense matrix of all rows."""

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sbert_ray.inference.batching import plan_batches
from sbert_ray.inference.engine import Encoder
from sbert_ray.inference.prepared import Features
from sbert_ray.inference.sparse import SparseRows, embed_sparse
from sbert_ray.inference.tokenized import TokenizedTexts


def matrix(num_rows: int = 9, dimension: int = 13) -> Tensor:
    """Mostly zeros, with empty rows and negative values."""
    values = torch.randn(num_rows, dimension, generator=torch.Generator().manual_seed(num_rows))
    return values * (values.abs() > 1) * (torch.arange(num_rows) % 4 != 2).unsqueeze(1)


def test_rows_hold_what_is_not_zero() -> None:
    dense = matrix()
    rows = SparseRows.of(dense)
    assert (len(rows), rows.dimension) == (9, 13)
    assert [array.dtype for array in (rows.offsets, rows.indices, rows.values)] == [np.int64, np.int32, np.float32]
    for row, values in enumerate(dense):
        inside = slice(*rows.offsets[row : row + 2])
        assert rows.indices[inside].tolist() == values.nonzero().flatten().tolist()  # ascending
        assert rows.values[inside].tolist() == values[values != 0].tolist()
    assert torch.equal(rows.to_dense(), dense)
    coo = rows.to_coo()
    assert coo.is_coalesced()
    assert torch.equal(coo.coalesce().to_dense(), dense)
    torch.sparse_coo_tensor(coo.indices(), coo.values(), coo.shape, check_invariants=True)
    assert all(torch.equal(row.to_dense(), values) for row, values in zip(rows.to_list(), dense, strict=True))
    assert all(row.is_coalesced() for row in rows.to_list())


def test_rows_of_several_follow_each_other() -> None:
    parts = [matrix(4), matrix(0), matrix(5)]
    joined = SparseRows.joined([SparseRows.of(part) for part in parts])
    assert torch.equal(joined.to_dense(), torch.cat(parts))
    assert joined.offsets.dtype == np.int64
    empty = SparseRows.joined([], 13)
    assert (len(empty), empty.to_dense().shape) == (0, (0, 13))
    assert [array.dtype for array in (empty.offsets, empty.indices, empty.values)] == [np.int64, np.int32, np.float32]


def test_rows_go_where_they_belong() -> None:
    dense = matrix()
    order = np.random.default_rng(0).permutation(9)
    assert torch.equal(SparseRows.of(dense[torch.from_numpy(order)]).scattered(order).to_dense(), dense)


def texts(lengths: list[int]) -> TokenizedTexts:
    ids = np.arange(sum(lengths), dtype=np.int32) % 50
    return TokenizedTexts(ids, np.concatenate([[0], np.cumsum(lengths)]))


class Model:
    """A text's embedding is how often each token is in it; notes the shapes of its batches."""

    def __init__(self, largest: int | None = None) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.largest = largest

    def __call__(self, features: Features) -> Features:
        ids, mask = features["input_ids"], features["attention_mask"]
        self.shapes.append(tuple(ids.shape))
        if self.largest is not None and len(ids) > self.largest:
            raise torch.OutOfMemoryError("CUDA out of memory")
        counts = torch.zeros(len(ids), 50).scatter_add(1, ids, mask.float())
        return {"sentence_embedding": counts, "other": ids}


LENGTHS = [3, 1, 70, 0, 5, 3, 9, 1, 40, 3, 2, 7] * 5


def run(max_tokens: int = 64, largest: int | None = None, **options: Any) -> tuple[Any, Model]:
    model = Model(largest)
    return embed_sparse(Encoder(model, torch.device("cpu")), texts(LENGTHS), max_tokens, **options), model


def expected() -> np.ndarray:
    ids, offsets = texts(LENGTHS).ids, texts(LENGTHS).offsets
    return np.stack([np.bincount(ids[start:end], minlength=50) for start, end in itertools.pairwise(offsets)])


@pytest.mark.parametrize("options", [{}, {"max_tokens": 1}, {"max_rows": 2}, {"largest": 3}], ids=str)
def test_rows_come_in_input_order(options: dict[str, Any]) -> None:
    batches: list[int] = []
    result, model = run(**options, on_batch=batches.append)
    np.testing.assert_array_equal(result.rows.to_dense().numpy(), expected())
    assert sum(batches) == len(LENGTHS)
    assert result.num_tokens == sum(LENGTHS)
    if "largest" not in options:
        assert result.num_padded_tokens == sum(rows * width for rows, width in model.shapes)
    if "max_rows" in options:
        assert max(rows for rows, _ in model.shapes) == 2


def test_only_the_largest_values_are_kept() -> None:
    result, _ = run(max_active_dims=3)
    assert result.rows.lengths.max() == 3
    dense = result.rows.to_dense().numpy()
    for row, values in zip(dense, expected(), strict=True):
        assert sorted(row[row > 0]) == sorted(values[values > 0])[-3:]


def test_a_plan_keeps_to_its_number_of_rows() -> None:
    lengths = np.array(LENGTHS)
    batches = plan_batches(lengths, 4096, 16, 7)
    assert max(map(len, batches)) == 7
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert [batch.tolist() for batch in plan_batches(lengths, 64, 16)] == [
        batch.tolist() for batch in plan_batches(lengths, 64, 16, 10**9)
    ]


def test_needs_an_input() -> None:
    with pytest.raises(ValueError, match="there must be at least one input"):
        embed_sparse(Encoder(Model(), torch.device("cpu")), texts([]), 64)


MEASUREMENT = """
import sys
import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

def resident(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 2**20

torch.manual_seed(0)
words = [f"w{number}" for number in range(30517)]
tokenizer = BertTokenizer(vocab={w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])})
tokenizer.model_max_length = 256
config = BertConfig(
    vocab_size=30522, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128,
    initializer_range=0.2,
)
BertForMaskedLM(config).save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])

from sbert_ray import SparseEncoder

model = SparseEncoder(sys.argv[1], device="cpu")
texts = [" ".join(np.random.default_rng(row).choice(words, 300)) for row in range(64)]
model.encode(texts[:1])
tokens = model.prepare(texts)
before = resident("VmRSS")
run = model.embed_prepared(tokens, max_batch_tokens=64 * 256)
after = resident("VmHWM")
assert run.num_padded_tokens == 64 * 256
assert run.rows.dimension == 30522

import sentence_transformers

theirs = sentence_transformers.SparseEncoder(sys.argv[1], device="cpu").encode(texts[:6], batch_size=1)
difference = (run.rows.to_dense()[:6] - theirs.to_dense()).abs().max().item()
print(before, after, difference)
"""


def test_splade_of_a_large_batch_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    """All logits of 64 texts of 256 tokens over 30,522 pieces would take 1.9 GiB, once."""
    command = [sys.executable, "-c", MEASUREMENT, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert result.returncode == 0, result.stderr
    before, after, difference = map(float, result.stdout.split()[-3:])
    assert after - before < 0.5  # GiB
    assert difference < 1e-5
