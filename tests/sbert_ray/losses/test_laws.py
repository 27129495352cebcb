"""What holds for every loss over embeddings: errors for what does not fit, finite values at the extremes, no order."""

import pytest
import torch
from torch import Tensor

from sbert_ray import SentenceTransformer
from sbert_ray.losses import (
    AdaptiveLayerLoss,
    CachedLoss,
    CachedSpladeLoss,
    ContrastiveTensionLossInBatchNegatives,
    CoSENTLoss,
    GatheredLoss,
    GISTEmbedLoss,
    Loss,
    MatryoshkaLoss,
    MSELoss,
    MultipleNegativesRankingLoss,
    SoftmaxLoss,
)
from sbert_ray.losses.wrapper import WrapperLoss
from tests.sbert_ray.losses.cases import CASES, Case, D, Toy
from tests.sbert_ray.losses.compare import columns_of, features_of, text_columns
from tests.sbert_ray.losses.oracle import total

SIZE = 8


def embedded(case: Case, loss: Loss, columns: list[Tensor]) -> Tensor:
    """The loss of given embeddings, with what a guide would say of other ones."""
    size = len(columns[0])
    return total(loss.value(columns, loss.targets(case.features(size), case.targets(size))))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_too_few_or_too_many_columns_are_refused(case: Case) -> None:
    loss = case.loss(Toy())
    least, most = loss.num_columns
    for number in [least - 1, *([] if most is None else [most + 1])]:
        features = [{"x": torch.zeros(SIZE, 6).double()}] * number
        with pytest.raises(
            ValueError, match=rf"{case.name.replace('SpladeLoss', '')}.* column\(s\) of inputs, got {number}"
        ):
            loss(features, case.targets(SIZE))


# Without labels, a classifier's logits are asked for.
@pytest.mark.parametrize("labels", [None, torch.zeros(0)], ids=["none", "empty"])
@pytest.mark.parametrize("case", [c for c in CASES if c.targets(2) is not None and c.name != "SoftmaxLoss"], ids=str)
def test_missing_labels_are_refused(case: Case, labels: Tensor | None) -> None:
    with pytest.raises(ValueError, match=rf"{case.name} needs (labels|one label per row), .*, got "):
        case.loss(Toy())(case.features(SIZE), labels)


@pytest.mark.parametrize("case", [c for c in CASES if c.loss(None).label_use == "none"], ids=str)
def test_labels_of_no_use_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match=r"takes no labels, got a tensor of shape \(8,\); leave the label column out"):
        case.loss(Toy())(case.features(SIZE), torch.ones(SIZE))


@pytest.mark.parametrize("case", [c for c in CASES if c.targets(SIZE) is not None], ids=str)
def test_labels_of_another_size_are_refused(case: Case) -> None:
    """The message names the loss and what came."""
    with pytest.raises(ValueError, match=rf"(?s){case.name.removesuffix('Loss')}.*got"):
        case.loss(Toy())(case.features(SIZE), case.targets(SIZE + 1))


@pytest.mark.parametrize("case", [c for c in CASES if c.num_columns > 1], ids=str)
def test_columns_of_other_lengths_are_refused(case: Case) -> None:
    columns = columns_of(case.num_columns, SIZE, D)
    columns[-1] = columns[-1][:-1]
    with pytest.raises(ValueError, match=r"columns must have as many rows as each other, and at least one, got \[8"):
        case.loss(Toy()).value(columns, case.targets(SIZE))


@pytest.mark.parametrize("size", [1, SIZE])
@pytest.mark.parametrize("extreme", ["zeros", "equal", "large", "tiny"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_extremes_give_finite_values_and_gradients(case: Case, extreme: str, size: int) -> None:
    columns = columns_of(case.num_columns, size, D)
    if extreme == "zeros":
        columns = [torch.zeros_like(column) for column in columns]
    elif extreme == "equal":
        columns = [columns[0][:1].expand(size, -1).clone() for _ in columns]
    else:
        columns = [column * (1e4 if extreme == "large" else 1e-12) for column in columns]
    columns = [column.requires_grad_() for column in columns]
    value = embedded(case, case.loss(Toy()), columns)
    assert value.isfinite()
    gradients = torch.autograd.grad(value, columns, allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_order_of_rows_does_not_matter(case: Case) -> None:
    order = torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])
    columns, loss = columns_of(case.num_columns, SIZE, D), case.loss(Toy())
    labels = loss.targets(case.features(SIZE), case.targets(SIZE))
    value = total(loss.value(columns, labels))
    permuted = total(loss.value([column[order] for column in columns], None if labels is None else labels[order]))
    torch.testing.assert_close(permuted, value)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_shares_of_rows_sum_up_to_the_loss(case: Case) -> None:
    columns, loss = columns_of(case.num_columns, SIZE, D), case.loss(Toy())
    labels = loss.targets(case.features(SIZE), case.targets(SIZE))
    shares = [loss.compute_rows(columns, labels, slice(*rows)) for rows in ((0, 3), (3, 4), (4, SIZE))]
    torch.testing.assert_close(sum(map(total, shares)), total(loss.compute(columns, labels)))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_autocast_leaves_the_precision_of_losses_alone(case: Case) -> None:
    columns, loss = [column.float() for column in columns_of(case.num_columns, SIZE, D)], case.loss(Toy()).float()
    labels = case.targets(SIZE)
    labels = labels.float() if labels is not None and labels.is_floating_point() else labels
    if case.name == "GISTEmbedLoss":
        labels = torch.stack(columns, dim=1)
    expected = total(loss.value(columns, labels))
    with torch.autocast("cpu", torch.bfloat16):
        found = total(loss.value(columns, labels))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_a_loss_without_a_model_is_for_embeddings_alone() -> None:
    loss = MultipleNegativesRankingLoss(None)
    assert loss.compute_loss_from_embeddings(columns_of(2, 3, 4)).isfinite()
    with pytest.raises(ValueError, match="MultipleNegativesRankingLoss has no model"):
        loss([{"x": torch.zeros(1, 6)}] * 2)


def test_a_wrapper_and_what_it_wraps_have_one_model(tiny_model: SentenceTransformer) -> None:
    inner = MultipleNegativesRankingLoss(None)
    wrapper = MatryoshkaLoss(tiny_model, inner, [16, 4])
    assert inner.model is tiny_model
    assert total(wrapper(features_of(tiny_model, text_columns(2)))).isfinite()
    with pytest.raises(ValueError, match=r"CachedLoss and the \w+Loss in it must have the same model"):
        CachedLoss(Toy(), inner)


def test_a_wrapper_passes_on_all_that_a_loss_may_do_its_own_way() -> None:
    """So that no wrapper forgets what a loss does otherwise than others."""
    private = {"forward", "value", "share", "joined", "compute_loss_from_embeddings", "get_config_dict"}
    of_caching = {"mini_batch_size", "mini_batch_num_tokens"}  # which read what is passed on
    about = {"label_hint", "needs_wrapper", "runs_model", "run"}  # those that run the model are not wrapped
    public = {name for name in vars(Loss) if not name.startswith("_")}
    assert public - private - of_caching - about <= set(vars(WrapperLoss))


def test_wrappers_take_the_embeddings_that_the_wrapped_loss_takes() -> None:
    columns, guide = columns_of(2, 4, 6), torch.stack(columns_of(2, 4, 3), dim=1)
    plain = GISTEmbedLoss(None, None).compute_loss_from_embeddings(columns, guide)
    for wrapper in (CachedLoss, GatheredLoss):
        found = wrapper(None, GISTEmbedLoss(None, None)).compute_loss_from_embeddings(columns, guide)
        torch.testing.assert_close(found, plain)


@pytest.mark.parametrize(
    "make",
    [lambda model: SoftmaxLoss(model, 16, 2), lambda model: MSELoss(model, projection_dim=8)],
    ids=["classifier", "projection"],
)
def test_embeddings_are_not_cut_for_a_layer_that_takes_whole_ones(tiny_model: SentenceTransformer, make) -> None:
    with pytest.raises(ValueError, match=r"MatryoshkaLoss cuts embeddings, and \w+ has a layer .* for whole ones"):
        MatryoshkaLoss(tiny_model, make(tiny_model), [16, 4])


def test_labels_must_be_a_tensor() -> None:
    with pytest.raises(TypeError, match="CoSENTLoss takes labels as a tensor, got list"):
        CoSENTLoss(None).compute_loss_from_embeddings(columns_of(2, 2, 4), [0.1, 0.2])


def test_wrappers_that_embed_refuse_losses_that_embed_otherwise(tiny_model: SentenceTransformer) -> None:
    inner = ContrastiveTensionLossInBatchNegatives(tiny_model)
    for make in (
        lambda: CachedLoss(tiny_model, inner),
        lambda: CachedSpladeLoss(tiny_model, inner, 0.1),
        lambda: AdaptiveLayerLoss(tiny_model, inner),
        lambda: CachedLoss(tiny_model, MatryoshkaLoss(tiny_model, inner, [4])),
    ):
        with pytest.raises(ValueError, match=r"Loss embeds columns with the model, which \w+ does otherwise"):
            make()


def test_wrappers_that_do_not_embed_take_them(tiny_model: SentenceTransformer) -> None:
    inner = ContrastiveTensionLossInBatchNegatives(tiny_model)
    features = features_of(tiny_model, text_columns(1))
    plain = inner(features)
    torch.testing.assert_close(MatryoshkaLoss(tiny_model, inner, [16])(features), plain)
    torch.testing.assert_close(GatheredLoss(tiny_model, inner)(features), plain)


def test_columns_of_images_and_texts_are_run_each_by_itself(tiny_clip) -> None:
    from PIL import Image

    model = SentenceTransformer(str(tiny_clip), device="cpu")
    images = [Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue")]
    columns = [model.preprocess(images), model.preprocess(["a cat", "dog", "a dog cat"])]
    found = []
    for loss in (MultipleNegativesRankingLoss(model), CachedLoss(model, MultipleNegativesRankingLoss(model), 2)):
        model.zero_grad()
        value = loss(columns)
        value.backward()
        found.append([value.detach(), *(w.grad.clone() for w in model.parameters() if w.grad is not None)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    embeddings = [model(column)["sentence_embedding"] for column in columns]
    torch.testing.assert_close(
        found[0][0], MultipleNegativesRankingLoss(model).compute_loss_from_embeddings(embeddings).detach()
    )


def test_texts_with_other_prompts_do_not_share_a_pass(tiny_model: SentenceTransformer) -> None:
    tiny_model.set_pooling_include_prompt(False)
    texts = text_columns(2)
    features = [tiny_model.preprocess(texts[0], prompt="the red "), tiny_model.preprocess(texts[1], prompt="a ")]
    embeddings = [tiny_model(column)["sentence_embedding"] for column in features]
    expected = MultipleNegativesRankingLoss(tiny_model).compute_loss_from_embeddings(embeddings)
    torch.testing.assert_close(MultipleNegativesRankingLoss(tiny_model)(features), expected, rtol=1e-5, atol=1e-6)
    cached = CachedLoss(tiny_model, MultipleNegativesRankingLoss(tiny_model), 3)(features)
    torch.testing.assert_close(cached, expected, rtol=1e-5, atol=1e-6)


def test_padding_on_the_left_is_left_out(tiny_model: SentenceTransformer) -> None:
    texts = text_columns(2)
    expected = MultipleNegativesRankingLoss(tiny_model)(features_of(tiny_model, texts))
    tiny_model.tokenizer.padding_side = "left"
    features = features_of(tiny_model, texts)
    assert features[0]["attention_mask"][:, 0].min() == 0
    torch.testing.assert_close(MultipleNegativesRankingLoss(tiny_model)(features), expected)


def test_static_embeddings_are_cached_column_by_column() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    from sbert_ray.modules import StaticEmbedding

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["[UNK]", "a", "cat", "dog"])}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    features = features_of(model, [["a cat", "dog", "cat"], ["cat", "a dog dog", "a"]])
    found = []
    for loss in (MultipleNegativesRankingLoss(model), CachedLoss(model, MultipleNegativesRankingLoss(model), 1)):
        model.zero_grad()
        value = loss(features)
        value.backward()
        found.append([value.detach(), *(w.grad.clone() for w in model.parameters())])
    torch.testing.assert_close(found[1], found[0])
