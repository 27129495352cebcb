"""DenoisingAutoEncoderLoss against its formula, its gradient, and the peer's implementation."""

import copy
import logging
import shutil

import pytest
import torch
import transformers

from sbert_ray import SentenceTransformer
from sbert_ray.losses import DenoisingAutoEncoderLoss
from sbert_ray.modules import Dense, Pooling, Transformer
from tests.conftest import tiny_head

DAMAGED = ["a", "dog", "sat on the", ""]
TEXTS = ["a cat sat", "the red dog ran fast on a mat", "the cat sat on the mat", "blue"]


def fill_cross_attention(*decoders) -> None:
    """Give decoders the same weights where they have random ones."""
    source = decoders[0].state_dict()
    for decoder in decoders[1:]:
        decoder.load_state_dict(source)


def features(model, *columns):
    return [dict(model.preprocess(texts)) for texts in columns]


@pytest.fixture(scope="module")
def causal(tiny_checkpoint, tmp_path_factory):
    """The tiny BERT with a language model's head."""
    return tiny_head(tiny_checkpoint, tmp_path_factory.mktemp("tiny-causal"), "BertForMaskedLM")


@pytest.fixture
def encoder(causal) -> SentenceTransformer:
    transformer = Transformer(str(causal))
    return SentenceTransformer(modules=[transformer, Pooling(16, "cls")], device="cpu").double()


def by_hand(loss, damaged, texts) -> float:
    """One text and one token at a time, without padding."""
    found = []
    for embedding, text in zip(damaged, texts, strict=True):
        ids = loss.model.tokenizer(text)["input_ids"]
        for place in range(1, len(ids)):
            logits = loss.decoder(
                input_ids=torch.tensor([ids[:place]]), encoder_hidden_states=embedding[None, None], use_cache=False
            ).logits[0, -1]
            found.append(-logits.log_softmax(0)[ids[place]].item())
    return sum(found) / len(found)


def test_is_the_formula(encoder):
    loss = DenoisingAutoEncoderLoss(encoder).eval()
    value = loss(features(encoder, DAMAGED, TEXTS))
    damaged = torch.as_tensor(encoder.encode(DAMAGED, convert_to_numpy=False, convert_to_tensor=True)).double()
    assert value.item() == pytest.approx(by_hand(loss, damaged, TEXTS), rel=1e-5)


def test_equals_the_peer(encoder, causal):
    peer = pytest.importorskip("sentence_transformers")
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    theirs = peer.SentenceTransformer(
        modules=[modules.Transformer(str(causal)), modules.Pooling(16, "cls")], device="cpu"
    )
    theirs.double().eval()
    ours_loss = DenoisingAutoEncoderLoss(encoder).eval()
    their_loss = losses.DenoisingAutoEncoderLoss(theirs).double().eval()
    fill_cross_attention(their_loss.decoder, ours_loss.decoder)
    found = []
    for model, loss in ((encoder, ours_loss), (theirs, their_loss)):
        value = loss(features(model, DAMAGED, TEXTS), None)
        value.backward()
        found.append((value, [p.grad for p in model.parameters()], [p.grad for p in loss.decoder.parameters()]))
    assert any(gradient is not None and gradient.abs().max() > 1e-3 for gradient in found[0][1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-8)
    assert ours_loss.get_config_dict() == their_loss.get_config_dict()


def test_the_decoder_shares_the_encoders_weights(encoder):
    loss = DenoisingAutoEncoderLoss(encoder)
    shared = {id(parameter) for parameter in encoder.parameters()}
    own = [name for name, parameter in loss.decoder.named_parameters() if id(parameter) not in shared]
    assert own
    assert all("crossattention" in name or name.startswith("cls.") for name in own)
    assert loss.decoder.get_output_embeddings().weight is encoder[0].model.get_input_embeddings().weight
    assert {id(p) for p in loss.own_parameters()} == {id(p) for p in loss.decoder.parameters()} - shared


def test_the_head_comes_from_the_encoders_checkpoint(encoder, causal):
    head = transformers.BertForMaskedLM.from_pretrained(causal).double().cls.state_dict()
    torch.testing.assert_close(DenoisingAutoEncoderLoss(encoder).decoder.cls.state_dict(), head)


def test_an_encoder_whose_checkpoint_is_gone_still_has_a_decoder(tiny_checkpoint, tmp_path, caplog):
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "moved")
    model = SentenceTransformer(str(folder), device="cpu")
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING, "sbert_ray"):
        loss = DenoisingAutoEncoderLoss(model)
    assert "the decoder's head starts at random" in caplog.text
    value = loss(features(model, DAMAGED, TEXTS))
    value.backward()
    assert torch.isfinite(value)
    assert model[0].model.embeddings.word_embeddings.weight.grad.any()


def test_an_encoder_that_never_had_a_checkpoint_has_a_decoder(encoder):
    fresh = Transformer(transformers.BertModel(transformers.BertConfig(**encoder.config.to_dict())), encoder.tokenizer)
    fresh.model.config._name_or_path = ""
    model = SentenceTransformer(modules=[fresh, Pooling(16)], device="cpu")
    assert torch.isfinite(DenoisingAutoEncoderLoss(model)(features(model, DAMAGED, TEXTS)))


def test_padding_does_not_matter(encoder):
    loss = DenoisingAutoEncoderLoss(encoder).eval()
    together = loss(features(encoder, DAMAGED, TEXTS))
    alone = [loss(features(encoder, [a], [b])) for a, b in zip(DAMAGED, TEXTS, strict=True)]
    counts = [len(encoder.tokenizer(text)["input_ids"]) - 1 for text in TEXTS]
    expected = sum(value * count for value, count in zip(alone, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(together, expected)


def test_the_order_of_rows_does_not_matter(encoder):
    loss = DenoisingAutoEncoderLoss(encoder).eval()
    values = [loss(features(encoder, DAMAGED[::step], TEXTS[::step])) for step in (1, -1)]
    torch.testing.assert_close(*values)


def test_only_the_embedding_tells_the_decoder_of_the_damaged_text(encoder):
    loss = DenoisingAutoEncoderLoss(encoder).eval()
    columns = features(encoder, DAMAGED, TEXTS)
    [embeddings] = loss.embed(columns)
    torch.testing.assert_close(
        loss(columns), loss.compute_loss_from_embeddings([embeddings], loss.targets(columns, None))
    )
    assert loss(columns) != loss.compute_loss_from_embeddings([embeddings.flip(0)], loss.targets(columns, None))


def test_gradient_is_right(encoder):
    loss = DenoisingAutoEncoderLoss(encoder).eval()
    columns = features(encoder, DAMAGED[:2], TEXTS[:2])
    tokens = loss.targets(columns, None)

    def value(embeddings):
        return loss.compute_loss_from_embeddings([embeddings], tokens)

    assert torch.autograd.gradcheck(value, torch.randn(2, 16, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e6])
def test_extremes_are_finite(encoder, scale):
    loss = DenoisingAutoEncoderLoss(encoder).eval()
    tokens = loss.targets(features(encoder, [""], TEXTS[:1]), None)
    embeddings = (torch.randn(1, 16) * scale).requires_grad_()
    value = loss.compute_loss_from_embeddings([embeddings], tokens)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(embeddings.grad).all()
    assert loss.compute_loss_from_embeddings([embeddings], tokens[:, :1]) == 0  # a lone token follows none


def test_training_restores_texts(causal):
    model = SentenceTransformer(modules=[Transformer(str(causal)), Pooling(16, "cls")], device="cpu")
    loss = DenoisingAutoEncoderLoss(model)
    optimizer = torch.optim.Adam({*model.parameters(), *loss.own_parameters()}, lr=1e-2)
    columns, values = features(model, DAMAGED, TEXTS), []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(columns)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


def test_a_decoder_of_its_own_shares_nothing(encoder, causal):
    loss = DenoisingAutoEncoderLoss(encoder, str(causal), tie_encoder_decoder=False)
    shared = {id(parameter) for parameter in encoder.parameters()}
    assert not any(id(parameter) in shared for parameter in loss.decoder.parameters())
    assert loss.get_config_dict() == {"decoder_name_or_path": str(causal), "need_retokenization": False}
    assert torch.isfinite(loss(features(encoder, DAMAGED, TEXTS)))


def test_a_decoder_of_another_vocabulary_gets_its_own_tokens(encoder, causal, tmp_path):
    folder = shutil.copytree(causal, tmp_path / "other")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "the", "ran", "a"])
    )
    transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    loss = DenoisingAutoEncoderLoss(encoder, str(folder), tie_encoder_decoder=False)
    assert loss.need_retokenization
    assert loss.targets(features(encoder, ["", ""], ["the dog ran", "a"]), None).tolist() == [
        [2, 6, 5, 7, 3],
        [2, 8, 3, -100, -100],
    ]
    assert torch.isfinite(loss(features(encoder, DAMAGED, TEXTS)))


def test_a_decoder_that_is_named_but_tied_is_told_to_be_unused(encoder, caplog):
    with caplog.at_level(logging.WARNING, "sbert_ray"):
        DenoisingAutoEncoderLoss(encoder, "other")
    assert "other is not used, as the decoder shares the encoder's weights" in caplog.text


def test_a_decoder_that_cannot_be_is_refused(encoder):
    with pytest.raises(ValueError, match="must name a checkpoint if tie_encoder_decoder=False, got None"):
        DenoisingAutoEncoderLoss(encoder, tie_encoder_decoder=False)
    with pytest.raises(ValueError, match="the encoder must be a transformer, got Linear without one"):
        DenoisingAutoEncoderLoss(torch.nn.Linear(2, 2))
    config = transformers.DistilBertConfig(vocab_size=17, dim=16, hidden_dim=32, n_layers=1, n_heads=2)
    model = SentenceTransformer(
        modules=[Transformer(transformers.DistilBertModel(config), encoder.tokenizer), Pooling(16)], device="cpu"
    )
    with pytest.raises(ValueError, match="a decoder with cross-attention of model type 'distilbert', got none"):
        DenoisingAutoEncoderLoss(model)


def test_embeddings_of_another_size_are_refused(encoder):
    model = SentenceTransformer(modules=[*copy.deepcopy(encoder).float(), Dense(16, 8)], device="cpu")
    with pytest.raises(ValueError, match="the decoder needs embeddings of 16 dimensions, got 8"):
        DenoisingAutoEncoderLoss(model)(features(model, DAMAGED, TEXTS))


def test_a_batch_of_another_form_is_refused(encoder):
    loss = DenoisingAutoEncoderLoss(encoder)
    for texts in ([TEXTS], [TEXTS] * 3):
        with pytest.raises(ValueError, match=rf"takes 2 column\(s\) of inputs, got {len(texts)}"):
            loss(features(encoder, *texts))
    with pytest.raises(ValueError, match=r"needs tokens to be restored, got \['offsets'\]"):
        loss([*features(encoder, TEXTS), {"offsets": torch.arange(4)}])
    with pytest.raises(ValueError, match="needs the tokens of 4 texts, got None"):
        loss.compute_loss_from_embeddings([torch.randn(4, 16)])
