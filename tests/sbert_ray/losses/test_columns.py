"""Columns run together give what each gives by itself, and what cannot be run together is not."""

import pytest
import torch

from sbert_ray import SentenceTransformer
from sbert_ray.losses.columns import Columns, MiniBatches, num_rows, read, run_columns
from sbert_ray.modules import Normalize, Pooling, Router, Transformer
from tests.sbert_ray.losses.cases import Toy
from tests.sbert_ray.losses.compare import features_of, text_columns


def alone(model, features) -> list[torch.Tensor]:
    return [model(column)["sentence_embedding"] for column in features]


@pytest.mark.parametrize("mode", ["mean", "cls", "max", "lasttoken"])
@pytest.mark.parametrize("mini_batches", [None, MiniBatches(3), MiniBatches(tokens=20), MiniBatches(99)])
def test_rows_come_back_where_they_were(tiny_model: SentenceTransformer, mode: str, mini_batches) -> None:
    model = SentenceTransformer(modules=[tiny_model[0], Pooling(16, mode), Normalize()], device="cpu")
    features = features_of(model, text_columns(3, 5))
    [found] = run_columns(model, features, mini_batches=mini_batches)
    torch.testing.assert_close(found, alone(model, features), rtol=1e-5, atol=1e-6)


def test_a_model_that_must_be_padded_gets_each_column_as_it_is(tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(type(tiny_model), "packed_features", lambda *_: None)
    features = features_of(tiny_model, text_columns(2))
    parts = list(Columns.of(features).parts(tiny_model))
    assert [part.features is column for part, column in zip(parts, features, strict=True)] == [True, True]
    [found] = run_columns(tiny_model, features, mini_batches=MiniBatches(3))
    torch.testing.assert_close(found, alone(tiny_model, features), rtol=1e-5, atol=1e-6)


def test_mini_batches_hold_texts_of_like_length(tiny_model) -> None:
    parts = list(Columns.of(features_of(tiny_model, text_columns(3, 4))).parts(tiny_model, MiniBatches(4)))
    longest = [part.features["packing"].longest for part in parts]
    assert longest == sorted(longest, reverse=True)
    assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(12))


@pytest.mark.parametrize("column", [0, 1])
def test_a_text_without_tokens_is_padded(tiny_model, column: int) -> None:
    """Whichever column it is in: without padding it would not be there, and all that follow would be others."""
    features = features_of(tiny_model, text_columns(2))
    features[column]["attention_mask"][0] = 0
    [found] = run_columns(tiny_model, features)
    expected = alone(tiny_model, features)
    torch.testing.assert_close(found[1 - column], expected[1 - column], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[column][1:], expected[column][1:], rtol=1e-5, atol=1e-6)
    assert len(list(Columns.of(features).parts(tiny_model))) == 2


def test_a_compiled_model_is_padded(tiny_model) -> None:
    features = features_of(tiny_model, text_columns(2))
    assert len(list(Columns.of(features).parts(tiny_model))) == 1
    assert len(list(Columns.of(features).parts(torch.compile(tiny_model, backend="eager")))) == 2


def test_routes_have_passes_of_their_own(tiny_checkpoint) -> None:
    first, second = (SentenceTransformer(str(tiny_checkpoint), device="cpu") for _ in range(2))
    with torch.no_grad():
        for weight in second.parameters():
            weight.mul_(1.5)
    router = Router.for_query_document(list(first), list(second))
    model = SentenceTransformer(modules=[router], device="cpu")
    texts = text_columns(3)
    features = [
        model.preprocess(column, task=task)
        for column, task in zip(texts, ("query", "document", "document"), strict=True)
    ]
    assert len(list(Columns.of(features).parts(model))) == 2
    [found] = run_columns(model, features)
    torch.testing.assert_close(found, alone(model, features), rtol=1e-5, atol=1e-6)


def test_training_has_the_gradients_of_padded_columns(tiny_checkpoint) -> None:
    """With the dropout of the model's config switched off, which no two orders of rows draw alike."""
    found = []
    for is_packed in (True, False):
        model = SentenceTransformer(str(tiny_checkpoint), device="cpu").train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        features = features_of(model, text_columns(2))
        [columns] = run_columns(model, features) if is_packed else [alone(model, features)]
        sum(column[:, 0].square().sum() + column[:, 1].sum() for column in columns).backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
        assert model[0].model.training
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_dropout_is_drawn_in_training_and_not_after_it(tiny_model) -> None:
    features = features_of(tiny_model, text_columns(2))
    tiny_model.train()
    first, second = (run_columns(tiny_model, features)[0] for _ in range(2))
    assert not torch.equal(first[0], second[0])
    with torch.no_grad():  # as the first pass of gradient caching does
        third, fourth = (run_columns(tiny_model, features)[0] for _ in range(2))
    assert not torch.equal(third[0], fourth[0])
    tiny_model.eval()
    with torch.no_grad():
        fifth, sixth = (run_columns(tiny_model, features)[0] for _ in range(2))
    torch.testing.assert_close(fifth, sixth, rtol=0, atol=0)
    torch.testing.assert_close(fifth, alone(tiny_model, features), rtol=1e-5, atol=1e-6)


def test_autocast_is_packed_too(tiny_model) -> None:
    features = features_of(tiny_model.train(), text_columns(3))
    with torch.autocast("cpu", torch.bfloat16):
        assert len(list(Columns.of(features).parts(tiny_model))) == 1
        [found] = run_columns(tiny_model.eval(), features)
        expected = alone(tiny_model, features)
    torch.testing.assert_close(found, [column.float() for column in expected], rtol=0.05, atol=0.02)


def test_a_model_whose_words_are_hooked_is_padded(tiny_model) -> None:
    """NEFTune's noise is scaled by the tokens of a row, which would be those of all texts."""
    words = tiny_model[0].model.get_input_embeddings()
    shapes = []
    handle = words.register_forward_hook(lambda _module, _args, output: shapes.append(tuple(output.shape)))
    features = features_of(tiny_model, text_columns(2))
    run_columns(tiny_model, features)
    assert shapes == [(*column["input_ids"].shape, 16) for column in features]
    handle.remove()
    assert len(list(Columns.of(features).parts(tiny_model))) == 1


def test_a_mask_with_a_hole_is_left_as_it_is(tiny_model) -> None:
    features = features_of(tiny_model, text_columns(2))
    features[0]["attention_mask"][0, 2] = 0
    [found] = run_columns(tiny_model, features)
    torch.testing.assert_close(found, alone(tiny_model, features), rtol=1e-5, atol=1e-6)


def test_columns_of_about_one_length_are_padded_together(tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(type(tiny_model), "packed_features", lambda *_: None)
    features = features_of(
        tiny_model, [["a cat sat", "the dog ran"], ["the dog", "a red cat"], ["the mat", "a blue dog"]]
    )
    [part] = Columns.of(features).parts(tiny_model)
    assert part.features["input_ids"].shape == (6, 5)
    [found] = run_columns(tiny_model, features)
    torch.testing.assert_close(found, alone(tiny_model, features), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_layers_computed_again_for_their_gradients_know_of_the_packing(tiny_checkpoint) -> None:
    found = []
    for is_checkpointed in (True, False):
        model = SentenceTransformer(str(tiny_checkpoint), device="cpu")
        transformer: Transformer = model[0]
        if is_checkpointed:
            transformer.model.gradient_checkpointing_enable({"use_reentrant": False})
            transformer.model.train()
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        features = features_of(model, text_columns(2))
        [columns] = run_columns(model, features)
        sum(column[:, 0].square().sum() + column[:, 1].sum() for column in columns).backward()
        found.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


def test_outputs_are_float32_at_least() -> None:
    assert read({"x": torch.zeros(1, dtype=torch.bfloat16)}, "x").dtype == torch.float32
    assert read({"x": torch.zeros(1, dtype=torch.float64)}, "x").dtype == torch.float64
    with pytest.raises(ValueError, match=r"the model must write 'sentence_embedding', got \['x'\]"):
        read({"x": torch.zeros(1)})


def test_features_must_hold_rows() -> None:
    assert num_rows({"x": torch.zeros(3, 2)}) == 3
    with pytest.raises(ValueError, match=r"features must hold tensors, got \['modality'\]"):
        num_rows({"modality": "text"})


def test_any_module_will_do() -> None:
    model, features = Toy(), [{"x": torch.randn(4, 6).double()} for _ in range(2)]
    [found] = run_columns(model, features, mini_batches=MiniBatches(3))
    torch.testing.assert_close(found, alone(model, features))
