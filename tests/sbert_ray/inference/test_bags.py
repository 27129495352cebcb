"""Texts as bags of tokens: what a batch of them is."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sbert_ray.inference.bags import TokenBags, tokenize_bags
from sbert_ray.inference.tokenization import CHUNK_ROWS


def word_tokenizer() -> Tokenizer:
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate("[CLS] a b c".split())}))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 0)])
    return core


def test_a_batch_has_the_tokens_of_its_rows_one_after_the_other() -> None:
    bags = TokenBags(np.arange(6, dtype=np.int32), np.array([0, 2, 2, 5, 6]))
    assert (len(bags), bags.lengths.tolist(), bags.num_positions(np.array([3, 0]))) == (4, [2, 0, 3, 1], 3)
    batch = bags.batch(np.array([2, 1, 0]))
    assert batch["input_ids"].tolist() == [2, 3, 4, 0, 1]
    assert batch["offsets"].tolist() == [0, 3, 3]
    assert batch["input_ids"].dtype == batch["offsets"].dtype == torch.int64
    assert bags.batch(np.array([1]))["input_ids"].shape == (0,)


def test_tokenizes_without_special_tokens_after_a_prompt() -> None:
    bags = tokenize_bags(word_tokenizer(), ["b", "", "c a"], "a ")
    assert bags.ids.tolist() == [1, 2, 1, 1, 3, 1]
    assert bags.offsets.tolist() == [0, 2, 3, 6]
    assert len(tokenize_bags(word_tokenizer(), [])) == 0


def test_gives_a_sign_of_life_for_each_chunk() -> None:
    signs: list[int] = []
    bags = tokenize_bags(word_tokenizer(), ["a"] * (2 * CHUNK_ROWS + 1), on_chunk=lambda: signs.append(1))
    assert (len(signs), len(bags)) == (3, 2 * CHUNK_ROWS + 1)
