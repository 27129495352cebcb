"""Modules at the import paths, and by the arguments, that scripts of all versions of the peer use."""

import importlib
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sbert_ray.modules
from sbert_ray import SentenceTransformer, models

peer = pytest.importorskip("sentence_transformers")
theirs = pytest.importorskip("sentence_transformers.sentence_transformer.modules")


def test_the_old_way_to_build_a_model(tiny_checkpoint: Path) -> None:
    words = models.Transformer(str(tiny_checkpoint), max_seq_length=8)
    pooling = models.Pooling(words.get_word_embedding_dimension())
    dense = models.Dense(pooling.get_sentence_embedding_dimension(), 4)
    model = SentenceTransformer(modules=[words, pooling, dense], device="cpu")
    assert model.encode(["a cat", "the dog"]).shape == (2, 4)
    assert model.max_seq_length == 8


FACES_OF_MODULES = [
    "models",
    "models.tokenizer",
    "sentence_transformer.modules",
    "sentence_transformer.modules.tokenizer",
    "sparse_encoder.models",
    "sparse_encoder.modules",
    "cross_encoder.modules",
]


@pytest.mark.parametrize("face", FACES_OF_MODULES)
def test_a_face_has_the_peers_names(face: str) -> None:
    ours = importlib.import_module(f"sbert_ray.{face}")
    assert set(ours.__all__) == names_of(face)
    assert all(getattr(ours, name) is getattr(sbert_ray.modules, name) for name in ours.__all__)


PACKAGES = [
    "",
    "evaluation",
    "quantization",
    "similarity_functions",
    *FACES_OF_MODULES,
    "sentence_transformer",
    "sentence_transformer.evaluation",
    "sentence_transformer.model",
    "sparse_encoder",
    "sparse_encoder.evaluation",
    "sparse_encoder.model",
    "cross_encoder",
    "cross_encoder.evaluation",
    "cross_encoder.model",
    "util",
    "util.environment",
    "util.file_io",
    "util.logging",
    "util.quantization",
    "util.retrieval",
    "util.similarity",
    "util.tensor",
]

TRAINING = "training is an issue of its own"
LOSSES = "losses are an issue of their own"
EVALUATION = "evaluation is an issue of its own"
MULTI_VECTOR = "multi-vector models are an issue of their own"
MINING = "mining is an issue of its own"
CARDS = "model cards are written by save_pretrained; data about training comes with training"
BACKENDS = "torch is the only backend"
NO_NAME = "no package of ours is called base, and no module misc"
OWN_WAY = "inner workings of the peer, which this library does otherwise"
ANY_CODE = "strings from files must not name code to import"

MISSING_MODULES: dict[str, str] = {
    "backend": BACKENDS,
    "base": NO_NAME,
    "multi_vector_encoder": MULTI_VECTOR,
    "util.dataset": TRAINING,
    "util.decorators": OWN_WAY,
    "util.deprecated_import": OWN_WAY,
    "util.distributed": TRAINING,
    "util.hard_negatives": MINING,
    "util.misc": NO_NAME,
    "cross_encoder.util": OWN_WAY,
    "sentence_transformer.datasets": TRAINING,
    "sentence_transformer.deprecated_model_card_templates": CARDS,
    "sentence_transformer.readers": TRAINING,
    "sparse_encoder.callbacks": TRAINING,
    "sparse_encoder.search_engines": "retrieval with the engines of others comes with the search issue",
    **{
        f"{kind}.{name}": reason
        for kind in ("sentence_transformer", "sparse_encoder", "cross_encoder")
        for name, reason in {
            "data_collator": TRAINING,
            "losses": LOSSES,
            "model_card": CARDS,
            "trainer": TRAINING,
            "training_args": TRAINING,
        }.items()
    },
    **{f"{kind}.fit_mixin": TRAINING for kind in ("sentence_transformer", "cross_encoder")},
}
"""Modules of the peer that ours lacks, and why; what is below them is missing too."""

MISSING_NAMES: dict[str, str] = {
    **dict.fromkeys(["DefaultBatchSampler", "MultiDatasetDefaultBatchSampler", "InputExample"], TRAINING),
    **dict.fromkeys(["SentencesDataset", "ParallelSentencesDataset", "resolve_ids"], TRAINING),
    **{
        f"{kind}{suffix}": reason
        for kind in ("SentenceTransformer", "SparseEncoder", "CrossEncoder")
        for suffix, reason in {
            "DataCollator": TRAINING,
            "ModelCardData": CARDS,
            "Trainer": TRAINING,
            "TrainingArguments": TRAINING,
        }.items()
    },
    "MultiVectorEncoder": MULTI_VECTOR,
    "MultiVectorEncoderModelCardData": MULTI_VECTOR,
    "MultiVectorEncoderTrainer": MULTI_VECTOR,
    "MultiVectorEncoderTrainingArguments": MULTI_VECTOR,
    **dict.fromkeys(["maxsim", "maxsim_pairwise", "mean_maxsim", "mean_maxsim_pairwise"], MULTI_VECTOR),
    **dict.fromkeys(["cat_padded_token_embeddings", "stack_padded_token_embeddings"], MULTI_VECTOR),
    "repad_flattened_features": MULTI_VECTOR,
    "mine_hard_negatives": MINING,
    "community_detection": MINING,
    "export_optimized_onnx_model": BACKENDS,
    "export_dynamic_quantized_onnx_model": BACKENDS,
    "export_static_quantized_openvino_model": BACKENDS,
    **dict.fromkeys(["all_gather", "all_gather_padded", "all_gather_with_grad"], TRAINING),
    **dict.fromkeys(["get_rank", "get_world_size", "is_dist_initialized"], TRAINING),
    **dict.fromkeys(["is_accelerate_available", "is_datasets_available", "is_training_available"], TRAINING),
    **dict.fromkeys(["disable_datasets_caching", "check_teacher_targets", "similarity_fct_name"], LOSSES),
    **dict.fromkeys(["append_to_last_row", "disable_logging"], EVALUATION),
    "import_from_string": ANY_CODE,
    "import_module_class": ANY_CODE,
    "http_get": "a download without limits; models come from the hub, images by inference.images.fetch",
    "install_logger": "colours, by a library that we do not depend on",
    **dict.fromkeys(["check_package_availability", "check_version_requirements"], OWN_WAY),
    **dict.fromkeys(["get_installed_version", "suggest_extra_on_exception"], OWN_WAY),
    **dict.fromkeys(["disabled_tqdm", "load_dir_path", "load_file_path", "save_to_hub_args_decorator"], OWN_WAY),
    "ORIGINAL_TRANSFORMER_MODELS": OWN_WAY,
}
"""Public names of the peer that ours lacks, and why. Those with an underscore are nobody's to use."""


def imported(library: str, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of older paths
        return importlib.import_module(f"{library}.{name}".removesuffix("."))


def names_of(face: str) -> set[str]:
    """Return the public names of one of the peer's modules: what it exports, or else what it defines."""
    module = imported("sentence_transformers", face)
    if hasattr(module, "__all__"):
        return {name for name in module.__all__ if not name.startswith("_")}
    defined = (name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__)
    return {name for name in defined if not name.startswith("_")}


@pytest.mark.parametrize("face", PACKAGES)
def test_no_public_name_is_missing_but_those_on_the_list(face: str) -> None:
    ours = imported("sbert_ray", face)
    missing = {name for name in names_of(face) if not hasattr(ours, name)}
    assert missing <= MISSING_NAMES.keys()
    known = names_of(face) - missing
    assert known - set(ours.__all__) == set()


def test_no_public_module_is_missing_but_those_on_the_list() -> None:
    paths = ["", "util", "sentence_transformer", "sparse_encoder", "cross_encoder"]
    found = {
        f"{path}.{module.name}".removeprefix(".")
        for path in paths
        for module in pkgutil.iter_modules(imported("sentence_transformers", path).__path__)
    }
    ours = {
        f"{path}.{module.name}".removeprefix(".")
        for path in paths
        for module in pkgutil.iter_modules(imported("sbert_ray", path).__path__)
    }
    assert found - ours == MISSING_MODULES.keys()
    assert found & ours <= set(PACKAGES)


def test_nothing_is_on_the_list_that_is_there() -> None:
    theirs_by_name = set().union(*map(names_of, PACKAGES))
    assert MISSING_NAMES.keys() <= theirs_by_name
    there = {name for face in PACKAGES for name in MISSING_NAMES if hasattr(imported("sbert_ray", face), name)}
    assert not there


def test_faces_are_the_things_themselves() -> None:
    import sbert_ray
    from sbert_ray import cross_encoder, quantization, sentence_transformer, similarity, similarity_functions, util
    from sbert_ray.cross_encoder.model import CrossEncoder
    from sbert_ray.models import loading
    from sbert_ray.sentence_transformer.model import SentenceTransformer as Dense
    from sbert_ray.sparse_encoder.model import SparseEncoder

    assert Dense is sbert_ray.SentenceTransformer is sentence_transformer.SentenceTransformer
    assert SparseEncoder is sbert_ray.SparseEncoder
    assert CrossEncoder is sbert_ray.CrossEncoder is cross_encoder.CrossEncoder
    assert sbert_ray.quantize_embeddings is util.quantize_embeddings is quantization.quantize_embeddings
    assert similarity_functions.cos_sim is util.cos_sim is similarity.cos_sim
    assert util.get_device_name is loading.default_device
    assert util.LoggingHandler is sbert_ray.LoggingHandler
    with pytest.raises(AttributeError, match=r"module 'sbert_ray.util' has no attribute 'import_from_string'"):
        _ = util.import_from_string


def test_the_device_is_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    from sbert_ray.util import get_device_name

    for is_there in (True, False):
        monkeypatch.setattr("torch.cuda.is_available", lambda found=is_there: found)
        assert get_device_name() == peer.util.get_device_name()
        monkeypatch.setenv("LOCAL_RANK", "2")
        assert get_device_name() == peer.util.get_device_name()


def test_util_and_quantization_do_not_wait_for_transformers() -> None:
    code = (
        "import sys, sbert_ray.util, sbert_ray; sbert_ray.quantize_embeddings; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_models_is_imported_without_torch() -> None:
    code = "import sys, sbert_ray.models as m; assert 'torch' not in sys.modules; m.Pooling; sys.modules['torch']"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_another_name_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Median'"):
        _ = models.Median


FLAGS: list[tuple[dict[str, Any], Any]] = [
    ({"pooling_mode_mean_tokens": True}, "mean"),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": False}, "cls"),
    ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ("cls", "max")),
    ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
    (
        {"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_lasttoken": True},
        ("mean_sqrt_len_tokens", "lasttoken"),
    ),
    ({"pooling_mode_cls_token": False}, "mean"),
    ({"pooling_mode_cls_token": True, "pooling_mode": "max"}, "max"),
]


@pytest.mark.parametrize(("flags", "mode"), FLAGS)
def test_pooling_takes_the_flags_of_old_versions(flags: dict[str, Any], mode: Any) -> None:
    with pytest.warns(FutureWarning, match=r"the arguments \['pooling_mode_.*\] are one, pooling_mode, now") as warned:
        ours = models.Pooling(768, **flags)
    assert warned[0].filename == __file__
    with pytest.warns(FutureWarning):
        expected = theirs.Pooling(768, **flags)
    assert ours.pooling_mode == expected.pooling_mode == mode
    assert ours.get_embedding_dimension() == expected.get_embedding_dimension()


def test_pooling_takes_old_and_new_names_together() -> None:
    with pytest.warns(FutureWarning) as warned:
        pooling = models.Pooling(word_embedding_dimension=6, pooling_mode_cls_token=True, include_prompt=False)
    assert len(warned) == 2
    assert (pooling.embedding_dimension, pooling.pooling_mode, pooling.include_prompt) == (6, "cls", False)
    with pytest.warns(FutureWarning), pytest.raises(TypeError, match="pooling_mode"):
        models.Pooling(6, "cls", pooling_mode_max_tokens=True)


def test_pooling_without_flags_warns_of_nothing() -> None:
    assert models.Pooling(6).pooling_mode == "mean"
    assert models.Pooling(6, ["cls"]).pooling_mode == "cls"


def test_old_names_of_the_dimension_are_on_every_module() -> None:
    for module in (models.Dense(3, 2), models.Pooling(2), models.LSTM(4, 1), models.LayerNorm(2)):
        assert module.get_sentence_embedding_dimension() == module.get_word_embedding_dimension() == 2
    assert models.Normalize().get_sentence_embedding_dimension() is None


def test_the_old_way_gives_the_peers_embeddings(tiny_checkpoint: Path) -> None:
    def build(kit: Any, kind: Any) -> Any:
        words = kit.Transformer(str(tiny_checkpoint))
        with pytest.warns(FutureWarning):
            pooling = kit.Pooling(16, pooling_mode_max_tokens=True, pooling_mode_cls_token=True)
        return kind(modules=[words, pooling, kit.Normalize()], device="cpu")

    texts = ["a cat", "the fast dog ran", ""]
    ours, expected = build(models, SentenceTransformer), build(theirs, peer.SentenceTransformer)
    np.testing.assert_allclose(ours.encode(texts), expected.encode(texts), atol=1e-6)
