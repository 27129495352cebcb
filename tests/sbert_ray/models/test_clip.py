"""Texts and images in one space."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sbert_ray import SentenceTransformer
from sbert_ray.inference.inputs import BadInputError
from sbert_ray.models.checkpoint import describe_checkpoint
from sbert_ray.modules import CLIPModel, Transformer

Image = pytest.importorskip("PIL.Image")
TEXTS = ["a photo of a cat", "dog", "the dog and the cat and much more than twelve tokens", "", "cat dog cat"]


def picture(seed: int, height: int = 40, width: int = 50):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = [picture(seed, height, width) for seed, (height, width) in enumerate([(40, 50), (32, 32), (90, 33), (20, 64)])]


@pytest.fixture(scope="module")
def model(tiny_clip) -> SentenceTransformer:
    return SentenceTransformer(tiny_clip, device="cpu")


@pytest.fixture(scope="module")
def peer(tiny_clip):
    return pytest.importorskip("sentence_transformers").SentenceTransformer(str(tiny_clip), device="cpu")


def assert_equal(ours, theirs) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=1e-5)


def test_texts_and_images_are_embedded_as_the_peer_does(model, peer):
    ours, theirs = model.encode(IMAGES), peer.encode(IMAGES)
    assert np.abs(theirs[0] - theirs[1]).max() > 0.1  # else it would mean nothing
    assert_equal(ours, theirs)
    assert_equal(model.encode(TEXTS), peer.encode(TEXTS))


def test_the_formula_is_a_tower_and_its_projection(model, tiny_clip):
    from transformers import CLIPModel as Towers
    from transformers import CLIPProcessor

    processor, towers = CLIPProcessor.from_pretrained(tiny_clip, backend="pil"), Towers.from_pretrained(tiny_clip)
    with torch.no_grad():
        pooled = towers.vision_model(**processor(images=IMAGES, return_tensors="pt")).pooler_output
        assert_equal(model.encode(IMAGES), towers.visual_projection(pooled))
        pooled = towers.text_model(**processor.tokenizer(TEXTS[:2], padding=True, return_tensors="pt")).pooler_output
        assert_equal(model.encode(TEXTS[:2]), towers.text_projection(pooled))


def test_every_kind_of_image_gives_what_the_peer_gives(model, peer, tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(png(7))
    pixels = np.asarray(picture(7))
    channels_first = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for value in (picture(7), pixels, channels_first, str(path), {"image": str(path)}, {"image": picture(7)}):
        assert_equal(model.encode(value), peer.encode(value))
        assert_equal(model.encode([value, value]), peer.encode([value, value]))
    for value in (png(7), path, memoryview(png(7))):  # which the peer does not take
        assert_equal(model.encode(value), peer.encode(picture(7)))
    assert_equal(model.encode(np.stack([pixels, pixels])), peer.encode([pixels, pixels]))


def test_a_grey_or_transparent_image_is_what_the_peer_makes_of_it(model, peer):
    for mode in ("L", "RGBA", "P", "CMYK"):
        image = picture(1).convert(mode)
        assert_equal(model.encode(image), peer.encode(image))


def test_a_list_may_mix_texts_and_images(model):
    mixed = [IMAGES[0], TEXTS[0], png(3), {"text": TEXTS[1]}, IMAGES[1], TEXTS[2], {"image": png(4)}]
    embeddings = model.encode(mixed)
    assert_equal(embeddings[[0, 2, 4, 6]], model.encode([IMAGES[0], png(3), IMAGES[1], png(4)]))
    assert_equal(embeddings[[1, 3, 5]], model.encode(TEXTS[:3]))
    for row, one in enumerate(mixed):
        assert_equal(embeddings[row], model.encode(one))


@pytest.mark.parametrize("max_batch_tokens", [1, 300, 600, 100_000])
def test_results_depend_on_neither_batches_nor_order(model, max_batch_tokens):
    mixed = [item for pair in zip(IMAGES, TEXTS, strict=False) for item in pair] * 3
    order = np.random.default_rng(0).permutation(len(mixed))
    shuffled = model.encode([mixed[index] for index in order], max_batch_tokens=max_batch_tokens)
    assert_equal(shuffled, model.encode(mixed)[order])


def test_images_are_read_batch_by_batch(model, monkeypatch):
    from sbert_ray.inference import images

    opened = []
    read = images.open_image
    monkeypatch.setattr(images, "open_image", lambda value: opened.append(value) or read(value))
    prepared = model.prepare([png(seed) for seed in range(6)])
    assert not opened
    seen = []
    run = model.embed_prepared(
        prepared, max_batch_tokens=2 * int(prepared.lengths[0]), on_batch=lambda rows: seen.append(len(opened))
    )
    assert seen in ([2, 4, 6], [4, 6, 6], [4, 4, 6], [2, 6, 6])  # one batch is read while another is computed
    assert_equal(run.embeddings, model.encode([png(seed) for seed in range(6)]))


def test_batch_size_is_in_images_too(model):
    sizes = []
    hook = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0]["pixel_values"])))
    model.encode([png(0)] * 10, batch_size=4)
    model.encode([png(0)] * 10, batch_size=16)
    hook.remove()
    assert sizes == [4, 3, 3, 10]


def test_prompts_are_for_texts(model):
    with_prompt = model.encode([IMAGES[0], "cat"], prompt="a photo of a ")
    assert_equal(with_prompt, model.encode([IMAGES[0], "a photo of a cat"]))


def test_long_texts_are_cut_as_the_peer_cuts_them(model, peer):
    assert model.max_seq_length == peer.max_seq_length == 12
    long = "dog cat " * 50
    ours = model.preprocess([long])["input_ids"]
    assert torch.equal(ours, peer.preprocess([long])["input_ids"])
    assert ours.shape == (1, 12)
    assert_equal(model.encode(long), peer.encode(long))


def test_texts_are_cut_to_what_the_model_takes_even_if_the_tokenizer_does_not_say(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": None}))
    assert describe_checkpoint(folder).max_seq_length == 12
    model = SentenceTransformer(folder, device="cpu")
    assert model.max_seq_length == 12
    assert model.encode("dog cat " * 50).shape == (8,)


def test_accessors_are_the_peers(model, peer):
    assert model.modalities == peer.modalities == ["text", "image"]
    for kind in ("text", "image", "audio", "message"):
        assert model.supports(kind) == peer.supports(kind)
    assert model.get_embedding_dimension() == peer.get_embedding_dimension() == 8
    assert type(model.processor) is type(peer.processor)
    assert model.processor.tokenizer is model.tokenizer


def test_the_files_tell_it_all(tiny_clip):
    info = describe_checkpoint(tiny_clip)
    assert info.modules == ("Transformer",)
    assert info.embedding_dimension == 8
    assert info.max_seq_length == 12
    assert info.modalities == ("text", "image")
    assert info.pooling_modes == ()


def test_checkpoints_go_both_ways(model, peer, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model.save_pretrained(tmp_path / "ours")
    peer.save_pretrained(str(tmp_path / "peer"))
    for name in ("config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"):
        ours, theirs = (json.loads((tmp_path / side / name).read_text()) for side in ("ours", "peer"))
        if name == "sentence_bert_config.json":
            assert ours == theirs
    again = sentence_transformers.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    loaded = SentenceTransformer(tmp_path / "peer", device="cpu")
    own = SentenceTransformer(tmp_path / "ours", device="cpu")
    for inputs in (IMAGES, TEXTS):
        expected = model.encode(inputs)
        for other in (again, loaded, own):
            assert_equal(other.encode(inputs), expected)
    assert describe_checkpoint(tmp_path / "peer").modalities == ("text", "image")


@pytest.mark.parametrize("has_old_files", [False, True])
def test_an_old_clip_model_is_read(tiny_clip, tmp_path, model, has_old_files):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    shutil.copytree(tiny_clip, tmp_path / "old/0_CLIPModel")
    kind = "sentence_transformers.models.CLIPModel"
    modules = [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": kind}]
    (tmp_path / "old/modules.json").write_text(json.dumps(modules))
    if has_old_files:  # as before transformers 5
        path = tmp_path / "old/0_CLIPModel/processor_config.json"
        images = json.loads(path.read_text())["image_processor"]
        images["crop_size"], images["size"] = 32, 32
        images["feature_extractor_type"] = "CLIPFeatureExtractor"
        del images["image_processor_type"]
        path.with_name("preprocessor_config.json").write_text(json.dumps(images))
        path.unlink()
    info = describe_checkpoint(tmp_path / "old")
    assert (info.modalities, info.embedding_dimension, info.max_seq_length) == (("text", "image"), 8, 12)
    old = SentenceTransformer(tmp_path / "old", device="cpu")
    peer = sentence_transformers.SentenceTransformer(str(tmp_path / "old"), device="cpu")
    for inputs in (IMAGES, TEXTS):
        assert_equal(old.encode(inputs), model.encode(inputs))
        assert_equal(old.encode(inputs), peer.encode(inputs))
    old.save_pretrained(tmp_path / "new")
    assert_equal(SentenceTransformer(tmp_path / "new", device="cpu").encode(IMAGES), model.encode(IMAGES))


def test_the_module_can_be_built_of_parts_and_by_its_old_name(tiny_clip, model):
    from transformers import CLIPModel as Towers
    from transformers import CLIPProcessor

    processor = CLIPProcessor.from_pretrained(tiny_clip, backend="pil")
    for module in (
        Transformer(Towers.from_pretrained(tiny_clip), processor),
        Transformer(str(tiny_clip)),
        CLIPModel(str(tiny_clip)),
    ):
        built = SentenceTransformer(modules=[module], device="cpu")
        assert_equal(built.encode(["cat", IMAGES[0]]), model.encode(["cat", IMAGES[0]]))
    with pytest.raises(ValueError, match="a model of texts and images needs its processor, got CLIPTokenizer"):
        Transformer(Towers.from_pretrained(tiny_clip), processor.tokenizer)


def test_a_setting_of_images_can_be_given(tiny_clip, model):
    other = SentenceTransformer(
        tiny_clip, device="cpu", processor_kwargs={"do_center_crop": False, "size": {"height": 32, "width": 32}}
    )
    assert np.abs(other.encode(IMAGES[2]) - model.encode(IMAGES[2])).max() > 1e-3
    assert_equal(other.encode("cat"), model.encode("cat"))


def test_a_bad_image_names_its_row(model, tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(png(1)[:500])
    with pytest.raises(BadInputError, match=r"row 3 of the inputs cannot be read: '.*cut.png' cannot be decoded"):
        model.encode([IMAGES[0], "text", png(0), str(path)])
    with pytest.raises(BadInputError, match=r"row 1 .*: there is no file '/nowhere.png'"):
        model.encode([IMAGES[0], Path("/nowhere.png")])
    with pytest.raises(BadInputError, match=r"row 0 .*: an image of 4 bytes is no image"):
        model.encode([b"text"])
    with pytest.raises(TypeError, match="inputs must be texts or images; row 1 is of type int"):
        model.encode(["a", 1])


def test_kinds_cannot_share_a_batch(model):
    with pytest.raises(ValueError, match="inputs of several kinds or routes cannot share a batch"):
        model.preprocess([IMAGES[0], "text"])
    features = model.preprocess(IMAGES[:2])
    assert features["pixel_values"].shape == (2, 3, 32, 32)
    assert_equal(model(features)["sentence_embedding"].detach(), model.encode(IMAGES[:2]))


def test_all_features_come_row_by_row(model):
    rows = model.encode([IMAGES[0], "cat"], output_value=None)
    assert rows[0]["pixel_values"].shape == (3, 32, 32)
    assert rows[1]["input_ids"].ndim == 1
    expected = model.encode([IMAGES[0], "cat"])
    assert_equal(torch.stack([row["sentence_embedding"] for row in rows]), expected)
    with pytest.raises(ValueError, match="a model that makes none"):
        model.encode("cat", output_value="token_embeddings")


def test_no_inputs_give_no_embeddings(model):
    assert model.encode([]).shape == (0, 8)
    assert len(model.prepare([])) == 0


def test_a_model_of_texts_takes_no_image(tiny_checkpoint):
    model = SentenceTransformer(tiny_checkpoint, device="cpu")
    assert model.modalities == ["text"]
    assert not model.supports("image")
    with pytest.raises(TypeError, match="inputs must be texts; row 0 is of type Image"):
        model.encode([IMAGES[0]])


def test_half_precision_takes_images_too(tiny_clip, model):
    half = SentenceTransformer(tiny_clip, device="cpu", model_kwargs={"dtype": "bfloat16"})
    ours, full = half.encode(["cat", IMAGES[0]]), model.encode(["cat", IMAGES[0]])
    assert half.dtype == torch.bfloat16
    assert (np.sum(ours * full, 1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(full, axis=1)).min() > 0.98


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_configs_that_do_not_fit_are_refused(model, tiny_checkpoint, tmp_path):
    model.save_pretrained(tmp_path / "clip")
    settings = tmp_path / "clip/sentence_bert_config.json"
    audio = {"text": {"method": "get_text_features", "method_output_name": "pooler_output"}}
    for given in (audio, audio | {"image": {"method": "get_audio_features", "method_output_name": None}}):
        edit(settings, modality_config=given)
        with pytest.raises(ValueError, match=r"must read its inputs by .*get_image_features"):
            describe_checkpoint(tmp_path / "clip")
    edit(settings, module_output_name="token_embeddings")
    with pytest.raises(ValueError, match="its module_output_name must be 'sentence_embedding', got 'token_embeddings'"):
        describe_checkpoint(tmp_path / "clip")
    bert = shutil.copytree(tiny_checkpoint, tmp_path / "bert")
    edit(bert / "sentence_bert_config.json", module_output_name="sentence_embedding")
    with pytest.raises(ValueError, match=r"must be of \['clip'\] to give the output 'sentence_embedding', got 'bert'"):
        SentenceTransformer(bert, device="cpu")


def test_a_missing_processor_names_itself(tiny_clip, tmp_path):
    folder = shutil.copytree(tiny_clip, tmp_path / "clip")
    (folder / "processor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks preprocessor_config.json, which says how images are read"):
        SentenceTransformer(folder, device="cpu")


def test_image_text_models_of_other_kinds_are_refused_before_they_are_loaded(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(ValueError, match=r"image-text models must be of \['clip'\], got 'siglip'"):
        describe_checkpoint(tmp_path)
