"""Search among codes, with FAISS, with usearch and with neither, by brute force and against the peer."""

import logging
import sys

import numpy as np
import pytest
import torch

from sbert_ray.quantization import PRECISIONS, calibration_ranges, dequantize_embeddings, quantize_embeddings
from sbert_ray.search import exact, quantized_search, semantic_search_faiss, semantic_search_usearch

GENERATOR = np.random.default_rng(0)
QUERIES = GENERATOR.standard_normal((150, 21)).astype(np.float32)  # 21 bits leave a part of a byte
CORPUS = GENERATOR.standard_normal((400, 21)).astype(np.float32)
RANGES = calibration_ranges(CORPUS)
QUANTIZED = PRECISIONS[1:]
FAISS = ["float32", "uint8", "ubinary"]
USEARCH = ["float32", "int8", "binary", "ubinary"]
LIBRARIES = {"faiss": (semantic_search_faiss, FAISS), "usearch": (semantic_search_usearch, USEARCH)}
WITH_LIBRARIES = [(library, precision) for library, (_, precisions) in LIBRARIES.items() for precision in precisions]
OPTIONS = {
    "ranges": {"ranges": RANGES},
    "calibration": {"calibration_embeddings": CORPUS},
    "queries' ranges": {},
    "not rescored": {"ranges": RANGES, "rescore": False},
    "many candidates": {"ranges": RANGES, "rescore_multiplier": 8, "top_k": 60},
    "graph": {"ranges": RANGES, "exact": False},
}


def codes_of(precision, rows=CORPUS):
    return quantize_embeddings(rows, precision, RANGES)


def scores_of(hits):
    return [hit["score"] for hit in hits]


def ids_of(results):
    return [[hit["corpus_id"] for hit in hits] for hits in results]


def assert_same(ours, theirs):
    """Ids may differ among equal scores only: in their order, and in which of the equal last ones are there."""
    for our_hits, their_hits in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(scores_of(our_hits), scores_of(their_hits), rtol=1e-4, atol=1e-4)
        last = our_hits[-1]["score"]
        ours_above, theirs_above = (
            {hit["corpus_id"] for hit in hits if abs(hit["score"] - last) > 1e-3} for hits in (our_hits, their_hits)
        )
        assert ours_above == theirs_above


def by_brute_force(precision, k, multiplier):
    """Return scores and ids of the best by rescored codes among the best by codes, ties by id."""
    codes, queries = codes_of(precision), codes_of(precision, QUERIES)
    if "binary" in precision:
        bits, query_bits = (dequantize_embeddings(c, precision, dim=21) for c in (codes, queries))
        first = -(query_bits[:, None] != bits).sum(-1)
    else:
        first = QUERIES.astype(np.float64) @ dequantize_embeddings(codes, precision, RANGES).T
    candidates = np.sort(np.argsort(-first, axis=1, kind="stable")[:, : k * multiplier])
    values = dequantize_embeddings(codes, precision, RANGES, 21)
    scores = np.take_along_axis(QUERIES.astype(np.float64) @ values.T, candidates, 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(candidates, order, 1)


@pytest.mark.parametrize("precision", QUANTIZED)
@pytest.mark.parametrize(("k", "multiplier"), [(10, 2), (7, 1), (3, 9), (300, 2)])
def test_native_search_is_brute_force(precision, k, multiplier, monkeypatch):
    monkeypatch.setattr(exact, "_ROWS", 150)
    monkeypatch.setattr(exact, "_CACHED_ROWS", 40)
    results, seconds = quantized_search(
        QUERIES, codes_of(precision), precision, k, RANGES, rescore_multiplier=multiplier
    )
    scores, ids = by_brute_force(precision, k, multiplier)
    assert ids_of(results) == ids.tolist()
    np.testing.assert_allclose([scores_of(hits) for hits in results], scores, rtol=1e-9, atol=1e-9)
    assert seconds > 0


@pytest.mark.parametrize(("library", "precision"), WITH_LIBRARIES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_libraries_agree_with_the_peer(library, precision, options):
    pytest.importorskip(library)
    peer = getattr(pytest.importorskip("sentence_transformers.util.quantization"), f"semantic_search_{library}")
    options = {"corpus_precision": precision, **options}
    # One index for both, since usearch adds rows in parallel, in any order, and so takes any of equal candidates.
    theirs, _, index = peer(QUERIES, codes_of(precision), output_index=True, **options)
    ours, _ = LIBRARIES[library][0](QUERIES, corpus_index=index, **options)
    assert_same(ours, theirs)
    assert {type(score) for hits in ours for score in scores_of(hits)} == {float}


@pytest.mark.parametrize(("library", "precision"), WITH_LIBRARIES)
def test_native_search_agrees_with_the_libraries(library, precision):
    pytest.importorskip(library)
    search = LIBRARIES[library][0]
    if precision != "float32" or library == "faiss":  # usearch's float32 scores are distances
        options = {"corpus_precision": precision, "ranges": RANGES, "rescore_multiplier": 40}  # all are candidates
        theirs, _ = search(QUERIES, codes_of(precision), **options)
        ours, _ = quantized_search(QUERIES, codes_of(precision), **options)
        assert_same(ours, theirs)
    if precision not in ("float32", "int8") or library == "faiss":
        queries = codes_of(precision, QUERIES)
        theirs, _ = search(queries, codes_of(precision), corpus_precision=precision, rescore=False)
        ours, _ = quantized_search(queries, codes_of(precision), precision, rescore=False)
        assert_same(ours, theirs)


@pytest.mark.parametrize(("precision", "at_least"), [("float32", 1.0), ("int8", 0.95), ("uint8", 0.95)])
@pytest.mark.parametrize("rescore", [True, False])
def test_codes_of_8_bits_find_what_floats_find(precision, at_least, rescore):
    corpus = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
    corpus /= np.linalg.norm(corpus, axis=1, keepdims=True)
    queries = corpus[:200]
    codes = quantize_embeddings(corpus, precision)
    found, _ = quantized_search(queries, codes, precision, calibration_embeddings=corpus, rescore=rescore)
    expected = np.argsort(-queries @ corpus.T, axis=1)[:, :10]
    recall = np.mean([len({*ids} & {*row}) / 10 for ids, row in zip(ids_of(found), expected.tolist(), strict=True)])
    assert recall >= at_least
    assert [ids[0] for ids in ids_of(found)] == list(range(200))


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_scores_of_floats_mean_the_same_rescored_or_not(precision):
    rescored, _ = quantized_search(QUERIES, codes_of(precision), precision, ranges=RANGES)
    others, _ = quantized_search(QUERIES, codes_of(precision), precision, ranges=RANGES, rescore=False)
    assert ids_of(others) == ids_of(rescored)
    for hits, expected in zip(others, rescored, strict=True):
        np.testing.assert_allclose(scores_of(hits), scores_of(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("library", "precision"), WITH_LIBRARIES)
@pytest.mark.parametrize("is_exact", [True, False], ids=["exact", "graph"])
def test_an_index_searched_again_finds_the_same(library, precision, is_exact):
    pytest.importorskip(library)
    search = LIBRARIES[library][0]
    options = {"corpus_precision": precision, "ranges": RANGES, "exact": is_exact}
    results, _, index = search(QUERIES, codes_of(precision), output_index=True, **options)
    again, _ = search(QUERIES, corpus_index=index, **options)
    assert_same(again, results)


def test_codes_of_other_binary_faiss_indexes_are_read_too():
    faiss = pytest.importorskip("faiss")
    codes = codes_of("ubinary")
    quantizer = faiss.IndexBinaryFlat(24)
    index = faiss.IndexBinaryIVF(quantizer, 24, 1)
    index.train(codes)
    index.add(codes)
    index.make_direct_map()
    results, _ = semantic_search_faiss(QUERIES, corpus_index=index, corpus_precision="ubinary")
    flat, _ = semantic_search_faiss(QUERIES, codes, corpus_precision="ubinary")
    assert_same(results, flat)


@pytest.mark.parametrize(("library", "precision"), [*WITH_LIBRARIES, *(("native", p) for p in PRECISIONS)])
def test_more_than_the_corpus_is_the_corpus(library, precision):
    if library != "native":
        pytest.importorskip(library)
    search = LIBRARIES[library][0] if library in LIBRARIES else quantized_search
    codes = codes_of(precision)[:4]
    for queries in (QUERIES[:2], QUERIES[0]):
        results, _ = search(queries, codes, corpus_precision=precision, ranges=RANGES, top_k=9)
        assert [sorted(ids) for ids in ids_of(results)] == [[0, 1, 2, 3]] * len(np.atleast_2d(queries))
    assert search(QUERIES[:2], codes[:0], corpus_precision=precision, ranges=RANGES)[0] == [[], []]
    assert search(QUERIES[:0], codes, corpus_precision=precision)[0] == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_tensors_are_taken_like_arrays(precision):
    tensors = (torch.tensor(QUERIES), torch.tensor(codes_of(precision)))
    arrays = (QUERIES, codes_of(precision))
    assert quantized_search(*tensors, precision)[0] == quantized_search(*arrays, precision)[0]


@pytest.mark.parametrize("dim", [64, 600, 1200])
def test_products_of_codes_are_exact_in_any_dimension(dim):
    codes = GENERATOR.integers(0, 256, (40, dim)).astype(np.uint8)
    results, _ = quantized_search(codes[:5], codes, "uint8", 40, rescore=False)
    products = codes[:5].astype(int) @ codes.astype(int).T
    assert [scores_of(hits) for hits in results] == (-np.sort(-products)).tolist()


@pytest.mark.parametrize("width", [1, 8, 11])
def test_bits_are_counted_with_an_older_numpy_too(width, monkeypatch):
    a, b = (GENERATOR.integers(0, 256, (n, width)).astype(np.uint8) for n in (5, 70))
    expected = np.unpackbits(a[:, None] ^ b, axis=-1).sum(-1)
    np.testing.assert_array_equal(exact.hamming_distances(a, b), expected)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(exact.hamming_distances(a, b), expected)


def test_queries_that_are_codes_are_not_rescored(caplog):
    codes = codes_of("binary", QUERIES)
    with caplog.at_level(logging.WARNING):
        results, _ = quantized_search(codes, codes_of("binary"), "binary")
    assert "nothing is rescored, since the queries are int8; pass them as floats" in caplog.text
    assert results == quantized_search(QUERIES, codes_of("binary"), "binary", rescore=False)[0]


def test_nothing_is_said_of_rescoring_floats(caplog):
    quantized_search(QUERIES, CORPUS)
    assert not caplog.records


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_missing_library_is_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(ImportError, match=rf"pip install 'sbert-ray\[{library}\]'"):
        LIBRARIES[library][0](QUERIES, CORPUS)


@pytest.mark.parametrize("library", LIBRARIES)
def test_libraries_say_what_is_needed(library):
    pytest.importorskip(library)
    search = LIBRARIES[library][0]
    with pytest.raises(ValueError, match="either corpus_embeddings or corpus_index must be given, got neither"):
        search(QUERIES)
    with pytest.raises(ValueError, match="either corpus_embeddings or corpus_index must be given, got both"):
        search(QUERIES, CORPUS, object())
    with pytest.raises(ValueError, match=r"corpus_precision must be one of \['float32', .*\], got 'int4'"):
        search(QUERIES, CORPUS, corpus_precision="int4")
    with pytest.raises(ValueError, match="same dimension, got 20 values of float32 a query and 21 a row of the corpus"):
        search(QUERIES[:, :20], CORPUS)


def test_errors_say_what_is_needed():
    with pytest.raises(ValueError, match="top_k must be positive, got 0"):
        quantized_search(QUERIES, CORPUS, top_k=0)
    with pytest.raises(ValueError, match="rescore_multiplier must be positive, got 0"):
        quantized_search(QUERIES, CORPUS, rescore_multiplier=0)
    with pytest.raises(ValueError, match=r"corpus_embeddings must be a matrix, got shape \(21,\)"):
        quantized_search(QUERIES, CORPUS[0])
    with pytest.raises(
        ValueError, match="corpus_embeddings of precision 'binary' must be int8, got float32; quantize_"
    ):
        quantized_search(QUERIES, CORPUS, "binary")
    with pytest.raises(ValueError, match="same dimension, got 1 values of binary a query and 3 a row of the corpus"):
        quantized_search(QUERIES[:, :8], codes_of("binary"), "binary")
    with pytest.raises(ValueError, match="int8 of a single embedding needs ranges or calibration_embeddings"):
        quantized_search(QUERIES[0], codes_of("int8"), "int8")
    with pytest.raises(ValueError, match="same dimension, got 20 values of int8 a query and 21 a row of the corpus"):
        quantized_search(QUERIES[:, :20], codes_of("int8"), "int8", ranges=RANGES)
    with pytest.raises(ValueError, match=r"query_embeddings must be \(N, D\) or \(D,\), got shape \(1, 150, 21\)"):
        quantized_search(QUERIES[None], CORPUS)


@pytest.mark.parametrize("ranges", [RANGES[:, :20], RANGES[0], RANGES.T, np.full_like(RANGES, np.nan)])
def test_ranges_of_another_shape_or_without_numbers_are_refused(ranges):
    for rescore in (True, False):
        with pytest.raises(ValueError, match=r"ranges must be .* of shape \(2, 21\), .* got"):
            quantized_search(QUERIES, codes_of("int8"), "int8", ranges=ranges, rescore=rescore)
