"""What all losses of cross-encoders do alike: pairs, prompts, mini-batches, caching, dtypes, messages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sbert_ray.losses.cross_encoder as ours
from sbert_ray import CrossEncoder, SentenceTransformer
from sbert_ray.losses.columns import MiniBatches
from tests.sbert_ray.losses.cross_encoder.cases import (
    CASES,
    DOCUMENTS,
    FOUR,
    GRADES,
    LISTS,
    PAIRS,
    QUERIES,
    SCORES,
    THREE,
    TWO,
    Case,
    logits_of,
)
from tests.sbert_ray.losses.cross_encoder.scored import Scored

FIRSTS = [next(case for case in CASES if case.loss == name) for name in ours.LOSSES]
OF_LISTS = ["ADRMSELoss", "LambdaLoss", "ListMLELoss", "ListNetLoss", "PListMLELoss", "RankNetLoss"]
OF_PAIRS = ["BinaryCrossEntropyLoss", "CrossEntropyLoss", "MSELoss"]
RANKING = ["CachedMultipleNegativesRankingLoss", "MultipleNegativesRankingLoss"]


def scored(num_labels: int = 1, dtype: torch.dtype = torch.float32) -> Scored:
    return Scored(PAIRS, logits_of(num_labels, dtype))


def build(name: str, **options: Any) -> ours.CrossEncoderLoss:
    return ours.LOSSES[name](scored(3 if name == "CrossEntropyLoss" else 1), **options)


@pytest.fixture
def tiny(tiny_cross_encoder: Path) -> CrossEncoder:
    return CrossEncoder(tiny_cross_encoder, device="cpu")


def gradients(value: Tensor, model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    value.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_every_loss_is_in_the_table() -> None:
    assert list(ours.LOSSES) == [loss.__name__ for loss in ours.LOSSES.values()]
    assert {*OF_LISTS, *OF_PAIRS, *RANKING, "MarginMSELoss"} == ours.LOSSES.keys()
    exported = {getattr(ours, name) for name in ours.__all__ if name.endswith("Loss")} - {ours.CrossEncoderLoss}
    assert exported == set(ours.LOSSES.values())


@pytest.mark.parametrize("name", ours.LOSSES)
def test_the_documentation_tells_columns_and_labels(name: str) -> None:
    paragraphs = (ours.LOSSES[name].__doc__ or "").split("\n\n")
    [found] = [paragraph for paragraph in paragraphs if paragraph.strip().startswith("Columns: ")]
    assert "Labels: " in found
    assert found.rstrip().endswith(".")


def test_citations_come_from_the_documentation() -> None:
    assert "arXiv:2405.07920" in build("ADRMSELoss").citation
    assert not build("BinaryCrossEntropyLoss").citation


def test_the_config_is_made_of_plain_values() -> None:
    assert build("BinaryCrossEntropyLoss", pos_weight=torch.tensor(2.0)).get_config_dict() == {
        "activation_fn": "Identity",
        "pos_weight": 2.0,
    }
    assert build("LambdaLoss", k=5).get_config_dict() == {
        "weighting_scheme": "NDCGLoss2PPScheme",
        "k": 5,
        "sigma": 1.0,
        "eps": 1e-10,
        "reduction_log": "binary",
        "activation_fn": "Identity",
        "mini_batch_size": None,
    }
    assert build("CachedMultipleNegativesRankingLoss").get_config_dict() == {
        "num_negatives": 4,
        "scale": 10.0,
        "activation_fn": "Sigmoid",
        "mini_batch_size": 32,
    }


@pytest.mark.parametrize("case", FIRSTS, ids=str)
def test_prompt_and_task_reach_the_model(case: Case) -> None:
    loss = case.build(ours, model := scored(case.num_labels))
    loss(case.inputs, case.labels)
    loss(case.inputs, case.labels, "Rank: ", "query")
    assert [call[1:] for call in model.calls] == [(None, None), ("Rank: ", "query")]


def test_a_prompt_changes_the_loss(tiny: CrossEncoder) -> None:
    loss = ours.MSELoss(tiny)
    assert loss(TWO, SCORES, "red mat ").item() != loss(TWO, SCORES).item()


@pytest.mark.parametrize("case", FIRSTS, ids=str)
def test_a_wrapped_model_gives_the_same(case: Case) -> None:
    class Wrapper(nn.Module):  # as DistributedDataParallel does
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, features: Any) -> Any:
            return self.module(features)

    values = []
    for model in (scored(case.num_labels), Wrapper(scored(case.num_labels))):
        torch.manual_seed(0)
        values.append(case.build(ours, model)(case.inputs, case.labels).item())
    assert values[0] == values[1]


@pytest.mark.parametrize("case", FIRSTS, ids=str)
def test_half_precision_is_left_at_the_logits(case: Case) -> None:
    model = scored(case.num_labels, torch.bfloat16)
    value = case.build(ours, model)(case.inputs, case.labels)
    assert value.dtype == torch.float32
    value.backward()
    assert model.logits.grad is not None
    assert model.logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("case", FIRSTS, ids=str)
def test_labels_may_be_lists_arrays_or_tensors(case: Case) -> None:
    if case.labels is None:
        kinds = [None, torch.tensor([]), []]
    elif case.inputs is LISTS:
        kinds = [GRADES, [torch.tensor(row) for row in GRADES], [np.array(row) for row in GRADES]]
    else:
        kinds = [case.labels, torch.tensor(case.labels), np.array(case.labels)]
    values = []
    for labels in kinds:
        torch.manual_seed(0)
        values.append(case.build(ours, scored(case.num_labels))(case.inputs, labels).item())
    assert values[1:] == pytest.approx(values[:1] * 2)


@pytest.mark.parametrize("name", OF_LISTS)
def test_lists_of_one_length_may_have_their_labels_in_one_tensor(name: str) -> None:
    inputs, labels = [QUERIES[:2], [DOCUMENTS[:3], DOCUMENTS[3:6]]], [[1.0, 0.0, 2.0], [0.0, 1.0, 2.0]]
    assert build(name)(inputs, torch.tensor(labels)).item() == build(name)(inputs, labels).item()


# Forward passes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "sizes"), [(None, [4, 4, 4]), (5, [5, 5, 2]), (0, [12]), (-1, [12]), (100, [12])])
@pytest.mark.parametrize("name", OF_LISTS)
def test_mini_batches_of_lists_are_as_large_as_told(name: str, size: int | None, sizes: list[int]) -> None:
    loss = ours.LOSSES[name](model := scored(), mini_batch_size=size)
    assert loss(LISTS, GRADES).item() == pytest.approx(build(name)(LISTS, GRADES).item())
    assert model.sizes == sizes


def test_other_losses_run_as_many_pairs_at_once_as_there_are_rows() -> None:
    ours.MarginMSELoss(model := scored())(FOUR, [[1.0, 2.0]] * 4)
    assert model.sizes == [4, 4, 4]
    ours.MSELoss(model := scored())(TWO, SCORES)
    assert model.sizes == [4]


@pytest.mark.parametrize("size", [1, 3, -1])
@pytest.mark.parametrize("name", OF_LISTS)
def test_the_size_of_mini_batches_changes_no_weights(name: str, size: int, tiny: CrossEncoder) -> None:
    kinds = [ours.LOSSES[name](tiny, mini_batch_size=some)(LISTS, GRADES) for some in (None, size)]
    whole, parts = (gradients(value, tiny) for value in kinds)
    torch.testing.assert_close(kinds[1], kinds[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_pairs_of_like_length_go_together(tiny: CrossEncoder) -> None:
    widths = []
    tiny.register_forward_pre_hook(lambda _, inputs: widths.append(tuple(inputs[0]["input_ids"].shape)))
    ours.ListNetLoss(tiny, mini_batch_size=4)(LISTS, GRADES)
    lengths = sorted(
        (len(f"{q} {d}".split()) + 3 for q, d in ours.ListNetLoss(tiny).pairs(LISTS, GRADES)[0]), reverse=True
    )
    assert widths == [(4, lengths[0]), (4, lengths[4]), (4, lengths[8])]


# Caching -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", FIRSTS, ids=str)
def test_any_loss_can_be_cached(case: Case, tiny: CrossEncoder) -> None:
    model = tiny if case.num_labels == 1 else scored(case.num_labels)
    loss = case.build(ours, model)
    found = []
    for mini_batches in (None, MiniBatches(3)):
        loss.mini_batches = mini_batches
        torch.manual_seed(0)
        found.append(loss(case.inputs, case.labels))
    whole, cached = (gradients(value, model) for value in found)
    torch.testing.assert_close(found[1], found[0].detach(), rtol=1e-5, atol=1e-6, check_device=False)
    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in FIRSTS if case.num_labels == 1], ids=str)
def test_the_second_pass_of_caching_drops_out_what_the_first_did(case: Case, tiny: CrossEncoder) -> None:
    loss = case.build(ours, tiny.train())
    inputs = case.inputs
    if inputs is TWO:  # all go at once, in the order of their lengths only with caching
        inputs = list(zip(*sorted(zip(*TWO, strict=True), key=lambda row: -len(" ".join(row).split())), strict=True))
    found = []
    for mini_batches in (None, MiniBatches(len(QUERIES))):  # which is what goes at once without caching too
        loss.mini_batches = mini_batches
        torch.manual_seed(0)
        found.append(loss(inputs, case.labels))
        torch.rand(5)  # as may be drawn before the backward pass
    whole, cached = (gradients(value, tiny) for value in found)
    torch.testing.assert_close(found[1], found[0].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)


def test_dropout_is_on_in_that_test(tiny: CrossEncoder) -> None:
    loss = ours.MSELoss(tiny.train())
    assert loss(TWO, SCORES).item() != loss(TWO, SCORES).item()


def test_caching_gives_the_weights_of_an_activation_their_gradients() -> None:
    found = []
    for mini_batches in (None, MiniBatches(3)):
        loss = ours.MSELoss(scored(), nn.PReLU())
        loss.mini_batches = mini_batches
        loss(TWO, SCORES).backward()
        found.append(loss.activation_fn.weight.grad)
    assert found[0].item() != 0
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("case", FIRSTS, ids=str)
def test_without_gradients_there_is_still_a_value(case: Case, tiny: CrossEncoder) -> None:
    model = tiny if case.num_labels == 1 else scored(case.num_labels)
    loss = case.build(ours, model)
    for mini_batches in (None, MiniBatches(3)):
        loss.mini_batches = mini_batches
        torch.manual_seed(0)
        with_gradients = loss(case.inputs, case.labels)
        torch.manual_seed(0)
        with torch.no_grad():
            value = loss(case.inputs, case.labels)
        assert not value.requires_grad
        torch.testing.assert_close(value, with_gradients.detach(), rtol=1e-4, atol=1e-5)


# Messages ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ours.LOSSES)
def test_the_model_must_be_a_cross_encoder(name: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} needs a CrossEncoder, got SentenceTransformer"):
        ours.LOSSES[name](SentenceTransformer(str(tiny_checkpoint), device="cpu"))


@pytest.mark.parametrize("name", [*OF_PAIRS, *OF_LISTS])
@pytest.mark.parametrize("columns", [1, 3])
def test_two_columns_are_needed(name: str, columns: int) -> None:
    with pytest.raises(ValueError, match=f"{name} takes 2 columns of inputs, got {columns}"):
        build(name)(THREE[:columns], SCORES)


@pytest.mark.parametrize(("name", "least"), [("MarginMSELoss", 3), *((name, 2) for name in RANKING)])
def test_a_column_too_few_is_told(name: str, least: int) -> None:
    with pytest.raises(ValueError, match=f"{name} takes at least {least} columns of inputs, got {least - 1}"):
        build(name)(THREE[: least - 1], None)


@pytest.mark.parametrize("name", ours.LOSSES)
def test_columns_must_have_as_many_rows_as_each_other(name: str) -> None:
    with pytest.raises(ValueError, match=r"columns must have as many rows as each other.*\[2, 4, 4\]|\[2, 4\]"):
        build(name)([QUERIES[:2], *(THREE if name == "MarginMSELoss" else TWO)[1:]], SCORES)
    with pytest.raises(ValueError, match=r"and at least one, got \[0, 0"):
        build(name)([[]] * (3 if name == "MarginMSELoss" else 2), [])


@pytest.mark.parametrize("name", ours.LOSSES)
def test_a_text_is_no_column(name: str) -> None:
    columns = ["the cat", *(THREE if name == "MarginMSELoss" else TWO)[1:]]
    with pytest.raises(TypeError, match=f"{name} takes lists of texts as columns, got str as column 0"):
        build(name)(columns, SCORES)


@pytest.mark.parametrize("name", [name for name in ours.LOSSES if name not in RANKING])
@pytest.mark.parametrize("labels", [None, [], torch.tensor([])], ids=["None", "list", "tensor"])
def test_labels_are_needed(name: str, labels: Any) -> None:
    inputs = {"MarginMSELoss": THREE}.get(name, LISTS if name in OF_LISTS else TWO)
    with pytest.raises(ValueError, match=f"{name} needs labels, .*, got none"):
        build(name)(inputs, labels)


@pytest.mark.parametrize("name", [name for name in ours.LOSSES if name not in RANKING])
def test_labels_must_be_numbers(name: str) -> None:
    inputs = {"MarginMSELoss": THREE}.get(name, LISTS if name in OF_LISTS else TWO)
    labels = [["a"] * len(row) for row in GRADES] if name in OF_LISTS else ["a", "b", "c", "d"]
    with pytest.raises(TypeError, match=r"labels.* must be numbers, got \[?'a'"):
        build(name)(inputs, labels)


@pytest.mark.parametrize("name", OF_LISTS)
@pytest.mark.parametrize(
    ("documents", "labels", "message"),
    [
        ([DOCUMENTS[:2], "blue"], [[1, 0], [1]], "a list of documents for each query, got str in row 1"),
        ([DOCUMENTS[:2], None], [[1, 0], [1]], "a list of documents for each query, got NoneType in row 1"),
        ([DOCUMENTS[:2], DOCUMENTS[:1]], [[1, 0], [1, 0]], "a label per document, got 2 for 1 in row 1"),
        ([DOCUMENTS[:2], DOCUMENTS[:1]], [[1, 0]], "one list per query, .*, got 1 of them for 2 queries"),
        ([DOCUMENTS[:2], DOCUMENTS[:1]], [[1, 0], 1], r"one list per query, .*, got shape \(\) in row 1"),
        ([DOCUMENTS[:2], DOCUMENTS[:1]], torch.tensor([1, 0]), r"one list per query, .*, got shape \(\) in row 0"),
        ([DOCUMENTS[:2], DOCUMENTS[:1]], torch.tensor(1.0), "one list per query, .*, got Tensor for 2 queries"),
        ([[], []], [[], []], r"at least one document, got 2 empty list\(s\)"),
    ],
)
def test_rows_of_lists_that_are_wrong_are_named(name: str, documents: Any, labels: Any, message: str) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=f"{name} needs {'labels, ' if 'one list' in message else ''}{message}"
    ):
        build(name)([QUERIES[:2], documents], labels)


@pytest.mark.parametrize("name", OF_PAIRS)
def test_there_must_be_a_label_for_each_pair(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} needs one label per row, 4, got labels of shape \(3,\)"):
        build(name)(TWO, [0, 1, 1])


@pytest.mark.parametrize("name", [name for name in ours.LOSSES if name not in OF_LISTS])
def test_texts_must_be_texts(name: str) -> None:
    columns = (THREE if name == "MarginMSELoss" else TWO)[:-1]
    with pytest.raises(TypeError, match=f"{name} takes texts, got NoneType as row 2 of column {len(columns)}"):
        build(name)([*columns, ["a cat", "a dog", None, "red"]], None if name in RANKING else [0, 1, 1, 0])


@pytest.mark.parametrize("name", OF_LISTS)
def test_documents_must_be_texts(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} takes texts, got int as document 1 of row 2"):
        build(name)([QUERIES, [["a"], ["a"], ["red", 7], ["a"]]], GRADES)
    with pytest.raises(TypeError, match=f"{name} takes texts, got float as row 0 of column 0"):
        build(name)([[0.5], [["a"]]], [[1]])
