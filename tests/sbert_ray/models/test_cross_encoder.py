"""What a cross-encoder gives for pairs, against the peer on the same checkpoints."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

import sbert_ray.cross_encoder
from sbert_ray import CrossEncoder
from sbert_ray.models.checkpoint import describe_checkpoint
from tests.sbert_ray.models.classifiers import ARCHITECTURES, PAIRS, assert_close, load, load_peer, make_checkpoint

peer = pytest.importorskip("sentence_transformers")

QUERY, DOCUMENTS = "a fast dog", ["the cat", "the dog ran", "red mat", "the cat", "a slow dog sat"]


@pytest.mark.parametrize("num_labels", [1, 3])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sequence_classifiers_agree(name: str, num_labels: int, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, name, num_labels)
    ours, theirs = load(tmp_path), load_peer(tmp_path)
    info = describe_checkpoint(tmp_path, model_type="CrossEncoder")
    assert (info.num_labels, info.max_seq_length) == (num_labels, 24)
    assert ours.num_labels == theirs.num_labels == num_labels
    assert ours.max_length == theirs.max_seq_length == 24
    assert ours.config.num_labels == ours.model.num_labels == num_labels
    assert type(ours.activation_fn) is type(theirs.activation_fn)
    scores = ours.predict(PAIRS)
    assert scores.dtype == np.float32
    assert np.ptp(scores) > 1e-3
    expected = theirs.predict(PAIRS, batch_size=1)  # alone, without padding
    assert scores.shape == expected.shape
    assert_close(scores, expected)
    assert_close(scores, theirs.predict(PAIRS))
    assert_close(ours.predict(PAIRS[::-1], max_batch_tokens=7)[::-1], expected)


def test_the_seeds_quickstart_runs(minilm: Path, tmp_path: Path) -> None:
    """With a head on a real transformer, since no real cross-encoder is at hand."""
    torch.manual_seed(0)
    theirs = peer.CrossEncoder(str(minilm), device="cpu", num_labels=1)
    theirs.save_pretrained(str(tmp_path))
    model = CrossEncoder(str(tmp_path))
    scores = model.predict(
        [
            ("How many people live in Berlin?", "Berlin had a population of 3,520,031 registered inhabitants."),
            ("How many people live in Berlin?", "Berlin is well known for its museums."),
        ]
    )
    assert_close(
        scores,
        theirs.predict(
            [
                ("How many people live in Berlin?", "Berlin had a population of 3,520,031 registered inhabitants."),
                ("How many people live in Berlin?", "Berlin is well known for its museums."),
            ]
        ),
    )
    passages = ["Berlin is well known for its museums.", "Berlin had a population of 3,520,031.", "Bananas are yellow."]
    ours = model.rank("How many people live in Berlin?", passages, return_documents=True)
    expected = theirs.rank("How many people live in Berlin?", passages, return_documents=True)
    assert [(hit["corpus_id"], hit["text"]) for hit in ours] == [(hit["corpus_id"], hit["text"]) for hit in expected]
    assert_close([hit["score"] for hit in ours], [hit["score"] for hit in expected])


@pytest.mark.parametrize(
    "options",
    [
        {"apply_softmax": True},
        {"activation_fn": nn.Tanh()},
        {"activation_fn": torch.sigmoid, "apply_softmax": True},
        {"prompt": "a red "},
        {"prompt_name": "blue"},
        {"batch_size": 2},
    ],
)
@pytest.mark.parametrize("num_labels", [1, 3])
def test_options_of_predict_agree(
    options: dict[str, Any], num_labels: int, one_label: Path, three_labels: Path
) -> None:
    folder = one_label if num_labels == 1 else three_labels
    prompts = {"blue": "blue blue ", "red": "red "}
    ours, theirs = (side(folder, prompts=prompts, default_prompt_name="red") for side in (load, load_peer))
    scores, expected = (model.predict(PAIRS, **options) for model in (ours, theirs))
    assert scores.shape == expected.shape
    assert_close(scores, expected)
    assert_close(ours.predict(PAIRS, prompt=""), load_peer(folder).predict(PAIRS))


@pytest.mark.parametrize("inputs", [PAIRS, PAIRS[0], list(PAIRS[0]), [PAIRS[0]], np.array(PAIRS), np.array(PAIRS[0])])
@pytest.mark.parametrize("options", [{}, {"convert_to_tensor": True}, {"convert_to_numpy": False}])
@pytest.mark.parametrize("num_labels", [1, 3])
def test_results_have_the_peers_types_and_shapes(
    inputs: Any, options: dict[str, Any], num_labels: int, one_label: Path, three_labels: Path
) -> None:
    folder = one_label if num_labels == 1 else three_labels
    ours, theirs = (side(folder).predict(inputs, **options) for side in (load, load_peer))
    assert type(ours) is type(theirs)
    assert np.shape(ours) == np.shape(theirs)
    assert_close(np.asarray(ours), np.asarray(theirs))


def test_pairs_may_come_from_arrow(pair_of_models: tuple[CrossEncoder, Any]) -> None:
    ours, _ = pair_of_models
    expected = ours.predict(PAIRS)
    lists = pa.array([list(pair) for pair in PAIRS])
    for inputs in (lists, pa.chunked_array([lists]), tuple(map(list, PAIRS)), np.array(PAIRS, object)):
        np.testing.assert_array_equal(ours.predict(inputs), expected)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ("a cat", TypeError, "must be a pair of texts or a list of pairs, got str"),
        (["a cat"], ValueError, r"must be a pair of texts or a list of pairs, got 1 text\(s\)"),
        (("a", "b", "c"), ValueError, r"got 3 text\(s\)"),
        ([("a", "b"), ("a", "b", "c")], ValueError, r"row 1 has 3 item\(s\)"),
        ([("a", "b"), ()], ValueError, r"row 1 has 0 item\(s\)"),
        ([("a", "b"), None], TypeError, "row 1 is of type NoneType"),
        ([("a", "b"), "ab"], TypeError, "row 1 is of type str"),
        ([("a", "b"), ("a", None)], TypeError, "the second one of row 1 is of type NoneType"),
        ([(3, "b")], TypeError, "the first one of row 0 is of type int"),
        ([None, "b"], TypeError, "row 0 is of type NoneType"),
        (None, TypeError, "got NoneType"),
        (pa.table({"a": ["x"], "b": ["y"]}), TypeError, r"got Table of shape \(1, 2\)"),
        ([("a", "b"), ("a", "\ud800")], ValueError, "row 1 has a lone surrogate"),
    ],
)
def test_what_is_no_pair_is_named(
    inputs: Any, error: type[Exception], message: str, pair_of_models: tuple[CrossEncoder, Any]
) -> None:
    with pytest.raises(error, match=message):
        pair_of_models[0].predict(inputs)


def test_no_pairs_give_no_scores(pair_of_models: tuple[CrossEncoder, Any], three_labels: Path) -> None:
    ours, theirs = pair_of_models
    assert ours.predict([]).shape == theirs.predict([]).shape == (0,)
    assert ours.predict([], convert_to_tensor=True).shape == (0,)
    assert ours.predict([], convert_to_numpy=False) == theirs.predict([], convert_to_numpy=False) == []
    assert load(three_labels).predict([]).shape == (0, 3)
    assert ours.rank("a", []) == theirs.rank("a", []) == []


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_k": 9, "return_documents": True}, {"prompt": "red "}])
def test_ranks_agree_and_ties_keep_their_order(
    options: dict[str, Any], pair_of_models: tuple[CrossEncoder, Any]
) -> None:
    ours, theirs = (model.rank(QUERY, DOCUMENTS, **options) for model in pair_of_models)
    assert [{**hit, "score": 0} for hit in ours] == [{**hit, "score": 0} for hit in theirs]
    assert_close([hit["score"] for hit in ours], [hit["score"] for hit in theirs])
    everything = pair_of_models[0].rank(QUERY, DOCUMENTS, activation_fn=torch.zeros_like)
    assert [hit["corpus_id"] for hit in everything] == [0, 1, 2, 3, 4]
    assert pair_of_models[0].rank(QUERY, DOCUMENTS, top_k=0) == []


def test_rank_refuses_what_it_cannot_rank(pair_of_models: tuple[CrossEncoder, Any], three_labels: Path) -> None:
    with pytest.raises(ValueError, match="rank needs a model with 1 label, got 3"):
        load(three_labels).rank(QUERY, DOCUMENTS)
    ours, _ = pair_of_models
    with pytest.raises(TypeError, match="query must be a text, got NoneType"):
        ours.rank(None, DOCUMENTS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="documents must be a list of texts, got str"):
        ours.rank(QUERY, "a cat")
    with pytest.raises(TypeError, match="row 1 is of type int"):
        ours.rank(QUERY, ["a", 3])
    with pytest.raises(ValueError, match="top_k must not be negative, got -1"):
        ours.rank(QUERY, DOCUMENTS, top_k=-1)
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        ours.rank(QUERY, DOCUMENTS, batch_size=0)


@pytest.mark.parametrize("limit", [5, 9, 40])
def test_pairs_are_cut_as_the_peer_cuts_them(limit: int, one_label: Path) -> None:
    ours, theirs = load(one_label, max_length=limit), load_peer(one_label, max_length=limit)
    assert ours.max_length == ours.max_seq_length == theirs.max_seq_length == limit
    assert_close(ours.predict(PAIRS), theirs.predict(PAIRS))
    ours.max_length = theirs.max_seq_length = 6
    assert_close(ours.predict(PAIRS), theirs.predict(PAIRS))


def test_processes_score_as_one_does(one_label: Path) -> None:
    model = load(one_label, prompts={"red": "red "}, default_prompt_name="red")
    expected = model.predict(PAIRS, prompt="", activation_fn=nn.Tanh())
    pool = model.start_multi_process_pool(["cpu"])
    try:
        scores = model.predict(PAIRS, prompt="", activation_fn=nn.Tanh(), pool=pool, chunk_size=3)
        ranked = model.rank(QUERY, DOCUMENTS, pool=pool)
        with pytest.raises(ValueError, match="predict in other processes needs arguments that they can import"):
            model.predict(PAIRS, activation_fn=lambda scores: scores, pool=pool)
        assert model.predict([], pool=pool).shape == (0,)
    finally:
        model.stop_multi_process_pool(pool)
    assert_close(scores, expected)
    assert [hit["corpus_id"] for hit in ranked] == [hit["corpus_id"] for hit in model.rank(QUERY, DOCUMENTS)]


def test_jobs_get_logits_or_scores_and_counts_of_tokens(three_labels: Path) -> None:
    model = load(three_labels)
    prepared = model.prepare(PAIRS)
    done: list[int] = []
    run = model.score_prepared(prepared, max_batch_tokens=50, activation_fn=nn.Identity(), on_batch=done.append)
    assert run.embeddings.shape == (len(PAIRS), 3)
    assert sum(done) == len(PAIRS)
    assert run.num_tokens == prepared.lengths.sum() <= run.num_padded_tokens
    np.testing.assert_allclose(run.embeddings, model.predict(PAIRS), atol=1e-6)
    with pytest.raises(ValueError, match="max_batch_tokens must be positive, got 0"):
        model.score_prepared(prepared, max_batch_tokens=0)


NOT_YET = {"model_card_data", "kwargs"}
METHODS = (
    "predict rank save_pretrained push_to_hub set_keep_in_fp32_modules get_max_seq_length start_multi_process_pool"
    " stop_multi_process_pool get_default_activation_fn"
).split()


@pytest.mark.parametrize("method", METHODS)
def test_arguments_have_the_peers_names_order_and_defaults(method: str) -> None:
    ours, theirs = (
        [(p.name, p.default) for p in inspect.signature(getattr(model, method)).parameters.values()]
        for model in (CrossEncoder, peer.CrossEncoder)
    )
    expected = [(name, default) for name, default in theirs if name not in NOT_YET]
    assert ours[: len(expected)] == expected


def test_the_constructor_takes_the_peers_arguments() -> None:
    ours, theirs = (inspect.signature(model).parameters for model in (CrossEncoder, peer.CrossEncoder))
    assert {name: p.default for name, p in theirs.items() if name not in NOT_YET} == {
        name: p.default for name, p in ours.items()
    }


def test_old_names_of_arguments_hold(one_label: Path, pair_of_models: tuple[CrossEncoder, Any]) -> None:
    ours, _ = pair_of_models
    with pytest.warns(FutureWarning, match="the argument sentences is called inputs now"):
        np.testing.assert_array_equal(ours.predict(sentences=PAIRS), ours.predict(PAIRS))
    with pytest.warns(FutureWarning, match="the argument activation_fct is called activation_fn now"):
        ours.rank(QUERY, DOCUMENTS, activation_fct=nn.Identity())
    with pytest.warns(FutureWarning) as told:
        model = load(
            one_label,
            automodel_args={"dtype": "float32"},
            tokenizer_args={"model_max_length": 9},
            default_activation_function=nn.Tanh(),
        )
    assert len(told) == 3
    assert (model.max_length, type(model.activation_fn)) == (9, nn.Tanh)


def test_the_public_import_paths_are_the_peers() -> None:
    import sentence_transformers.cross_encoder.modules as theirs

    import sbert_ray.cross_encoder.modules as ours

    assert sbert_ray.cross_encoder.CrossEncoder is CrossEncoder
    assert set(ours.__all__) == set(theirs.__all__)
    for name in ours.__all__:
        if hasattr(getattr(ours, name), "public_path"):
            assert getattr(theirs, name).__name__ == getattr(ours, name).__name__
