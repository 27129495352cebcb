"""NanoBEIR from a folder, against the peer, dense and sparse."""

from pathlib import Path
from typing import Any

import pytest

from sbert_ray.evaluation import NanoBEIREvaluator, SparseNanoBEIREvaluator
from sbert_ray.evaluation.nano_data import NANO_NAMES, NanoData, nano_name
from sbert_ray.similarity import cos_sim, dot_score
from tests.sbert_ray.evaluation.nano import Columns, tables, write
from tests.sbert_ray.evaluation.oracle import SparseTexts, Texts, assert_same

dense = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
sparse = pytest.importorskip("sentence_transformers.sparse_encoder.evaluation")

NAMES = ["msmarco", "NQ", "scifact"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("nano"), ["NanoMSMARCO", "NanoNQ", "NanoSciFact"])


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The peer's evaluators with our data, since `datasets` is not installed."""

    def load(self: Any, subset: str, split: str, required_columns: Any) -> Columns:
        return Columns(tables(split)[subset])

    monkeypatch.setattr(dense.NanoBEIREvaluator, "_load_dataset_subset_split", load)
    return {"NanoBEIREvaluator": dense.NanoBEIREvaluator, "SparseNanoBEIREvaluator": sparse.SparseNanoBEIREvaluator}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"truncate_dim": 3, "query_prompts": "find ", "corpus_prompts": dict.fromkeys(NAMES, "text "), "mrr_at_k": [3]},
        {
            "score_functions": {"b": dot_score, "a": cos_sim},
            "aggregate_fn": max,
            "aggregate_key": "max",
            "write_predictions": True,
        },
        {"write_csv": False, "main_score_function": "cosine"},
    ],
)
def test_equals_the_peer(options: dict[str, Any], folder: Path, peers: Any, tmp_path: Path) -> None:
    theirs = peers["NanoBEIREvaluator"](NAMES, **options)
    ours = NanoBEIREvaluator(NAMES, str(folder), **options)
    assert_same(ours, theirs, Texts(levels=1), tmp_path)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")  # the peer's
@pytest.mark.parametrize("options", [{}, {"max_active_dims": 2}, {"aggregate_fn": max}])
def test_sparse_equals_the_peer(options: dict[str, Any], folder: Path, peers: Any, tmp_path: Path) -> None:
    theirs = peers["SparseNanoBEIREvaluator"](NAMES, **options)
    ours = SparseNanoBEIREvaluator(NAMES, str(folder), **options)
    assert_same(ours, theirs, SparseTexts(dim=16, similarity_fn_name="dot"), tmp_path)


def test_splits_are_called_as_by_the_peer(peers: Any) -> None:
    peer = peers["NanoBEIREvaluator"](["msmarco"])
    assert [nano_name(name) for name in NANO_NAMES] == [peer._get_human_readable_name(name) for name in NANO_NAMES]


def test_several_files_and_json_lines_are_read(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, ["NanoNQ"], kind="jsonl")
    lines, files = NanoData(str(tmp_path), "nq"), NanoData(str(folder), "nq")
    assert (lines.corpus, lines.queries, lines.relevant_docs) == (files.corpus, files.queries, files.relevant_docs)
    assert list(lines.rankings()) == list(files.rankings())
    assert files.corpus["empty"] == ""  # which cross-encoders may have to score
    assert len(list((folder / "corpus").glob("NanoNQ-*.parquet"))) == 2


def test_all_data_sets_are_meant_by_none(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"must have corpus/NanoClimateFEVER.parquet or .jsonl, found none"):
        NanoBEIREvaluator(dataset_id=str(folder))


def test_without_the_hub_a_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("sentence-transformers/NanoBEIR-en", "/no/such/folder"):
        with pytest.raises(FileNotFoundError, match=f"hub, which is needed for it, got '{name}'"):
            NanoBEIREvaluator(["msmarco"], name)


def test_wrong_input_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown data sets \['nope'\]; known ones are \['climatefever'"):
        NanoBEIREvaluator(["nope"], str(folder))
    with pytest.raises(ValueError, match="dataset_names must be at least one"):
        NanoBEIREvaluator([], str(folder))
    with pytest.raises(ValueError, match=r"query_prompts must have a prompt for each data set, got none for \['NQ'\]"):
        NanoBEIREvaluator(["NQ"], str(folder), query_prompts={"msmarco": "x"})
    for file in ("NanoNQ.jsonl",):
        (tmp_path / "corpus").mkdir()
        (tmp_path / "corpus" / file).write_text('{"_id": "a", "body": "x"}\n')
    with pytest.raises(ValueError, match=r"NanoNQ.jsonl lacks column\(s\) \['text'\]; it has \['_id', 'body'\]"):
        NanoBEIREvaluator(["NQ"], str(tmp_path))


def test_prompts_may_be_by_name_in_any_case(folder: Path) -> None:
    evaluator = NanoBEIREvaluator(NAMES, str(folder), query_prompts={"MSMARCO": "a", "nq": "b", "SciFact": "c"})
    assert evaluator.query_prompts == {"msmarco": "a", "NQ": "b", "scifact": "c"}
    assert [part.query_prompt for part in evaluator.evaluators] == ["a", "b", "c"]


def test_other_files_beside_the_data_are_not_read(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, ["NanoMSMARCO"])
    expected = list(NanoData(str(tmp_path), "msmarco").rankings())
    write(tmp_path, ["NanoMSMARCO"], kind="jsonl")
    (tmp_path / "bm25" / "NanoMSMARCO.md").write_text("about it")
    assert list(NanoData(str(tmp_path), "msmarco").rankings()) == expected


def test_a_name_alone_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a list of names, such as \['msmarco'\], got 'msmarco'"):
        NanoBEIREvaluator("msmarco", str(folder))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_function_is_chosen_once_as_by_the_peer(seed: int, folder: Path, peers: Any) -> None:
    functions = {"b": lambda a, b: -dot_score(a, b), "a": dot_score, "c": dot_score}
    theirs = peers["NanoBEIREvaluator"](NAMES, score_functions=functions)
    ours = NanoBEIREvaluator(NAMES, str(folder), score_functions=functions)
    for levels in (seed + 1, seed + 2):
        ours(Texts(levels=levels))
        theirs(Texts(levels=levels))
        assert ours.primary_metric == theirs.primary_metric
