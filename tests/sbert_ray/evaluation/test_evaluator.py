"""What all evaluators share, and whether all of the peer's are there."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sbert_ray import evaluation
from sbert_ray.evaluation import (
    Evaluator,
    InformationRetrievalEvaluator,
    SequentialEvaluator,
    TranslationEvaluator,
    TripletEvaluator,
)
from sbert_ray.evaluation.evaluator import append_row
from tests.sbert_ray.evaluation.oracle import Texts, assert_same, words

peer = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")

PACKAGES = ["sentence_transformer", "sparse_encoder", "cross_encoder"]
PAIR = (words("a", 9), words("b", 9))


def classes() -> list[tuple[str, str]]:
    modules = {package: importlib.import_module(f"sentence_transformers.{package}.evaluation") for package in PACKAGES}
    return [(package, name) for package, module in modules.items() for name in module.__all__]


@pytest.mark.parametrize(("package", "name"), classes())
def test_every_evaluator_of_the_peer_is_there_with_its_arguments(package: str, name: str) -> None:
    ours = getattr(importlib.import_module(f"sbert_ray.{package}.evaluation"), name)
    theirs = getattr(importlib.import_module(f"sentence_transformers.{package}.evaluation"), name)
    if package != "cross_encoder":
        assert getattr(evaluation, name) is ours
    if name in ("SimilarityFunction", "BaseEvaluator", "SentenceEvaluator"):
        return
    assert described(ours.__init__) == described(theirs.__init__)
    assert list(described(ours.__call__))[: len(described(Evaluator.__call__))] == [
        parameter for parameter in described(theirs.__call__) if parameter not in ("args", "kwargs")
    ]


def described(function: Any) -> dict[str, tuple[Any, Any]]:
    """Return kind and default of each parameter by name, without defaults that are functions."""
    parameters = inspect.signature(function).parameters
    return {name: (p.kind, "function" if callable(p.default) else p.default) for name, p in parameters.items()}


def test_the_package_is_imported_without_torch() -> None:
    code = (
        "import sys, sbert_ray.evaluation as e; assert 'torch' not in sys.modules; e.MSEEvaluator; sys.modules['torch']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'Median'"):
        _ = evaluation.Median


def test_evaluators_need_nothing_but_numpy_and_torch() -> None:
    code = (
        "import sys; sys.modules |= dict.fromkeys(['scipy', 'sklearn', 'pandas', 'datasets', 'sentence_transformers']);"
        "from sbert_ray.evaluation import TranslationEvaluator, EmbeddingSimilarityEvaluator as E;"
        "import sbert_ray.sparse_encoder.evaluation, sbert_ray.cross_encoder.evaluation, numpy as np;"
        "M = type('M', (), {'encode': lambda self, texts, batch_size: np.eye(3)[[len(t) for t in texts]]});"
        "print(E(['', 'a'], ['', 'bb'], [1, 0])(M()))"
    )
    assert (
        "spearman_cosine"
        in subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    )


class Fixed(Evaluator):
    """Returns what it is told to."""

    def __init__(self, value: Any, primary_metric: str | None = None) -> None:
        self.value = value
        self.primary_metric = primary_metric

    def __call__(self, model: Any, output_path: Any = None, epoch: int = -1, steps: int = -1) -> Any:
        return self.value


@pytest.mark.parametrize(
    "parts",
    [
        [(0.5,), (0.7,)],
        [({"a": 1.0, "b": 2.0}, "b"), ({"a": 3.0}, "a")],
        [({"a": 1.0, "b": 2.0},)],
        [({"a": 1.0, "b": 2.0}, "b"), (0.25,)],
    ],
)
def test_a_sequence_equals_the_peers(parts: list[Any]) -> None:
    ours = SequentialEvaluator(Fixed(*part) for part in parts)
    theirs = peer.SequentialEvaluator([Fixed(*part) for part in parts])
    assert ours(None) == theirs(None)
    assert ours.primary_metric == theirs.primary_metric == "sequential_score"
    ours, theirs = (
        kind([Fixed(*part) for part in parts], main_score_function=sum)
        for kind in (SequentialEvaluator, peer.SequentialEvaluator)
    )
    assert ours(None) == theirs(None)


def test_a_sequence_of_ours_writes_the_files_of_the_peers(tmp_path: Path) -> None:
    data = ({"q": "a"}, {"d": "b", "e": "c"}, {"q": {"e"}})
    ours = SequentialEvaluator([InformationRetrievalEvaluator(*data, name="x"), TranslationEvaluator(*PAIR)])
    theirs = peer.SequentialEvaluator(
        [peer.InformationRetrievalEvaluator(*data, name="x"), peer.TranslationEvaluator(*PAIR)]
    )
    theirs.name = ours.name
    assert_same(ours, theirs, Texts(), tmp_path)
    with pytest.raises(ValueError, match="evaluators must be at least one"):
        SequentialEvaluator([])


def test_nothing_is_written_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TranslationEvaluator(*PAIR)(Texts())
    TranslationEvaluator(*PAIR, write_csv=False)(Texts(), str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_names_are_put_before_metrics_as_by_the_peer() -> None:
    ours, theirs = Evaluator(), peer.BaseEvaluator()
    for name in ("", "x", "x"):
        for evaluator in (ours, theirs):
            evaluator.primary_metric = evaluator.primary_metric or "acc"
        assert ours.prefix_name_to_metrics({"acc": 1, "x_b": 2}, name) == theirs.prefix_name_to_metrics(
            {"acc": 1, "x_b": 2}, name
        )
        assert ours.primary_metric == theirs.primary_metric


def test_a_card_that_keeps_metrics_is_told() -> None:
    model = Texts()
    told: list[Any] = []
    model.model_card_data = type("Card", (), {"set_evaluation_metrics": lambda self, *args: told.append(args)})()
    evaluator = Evaluator()
    evaluator.store_metrics_in_model_card_data(model, {"a": 1.0}, 1, 2)
    assert told == [(evaluator, {"a": 1.0}, 1, 2)]
    evaluator.store_metrics_in_model_card_data(object(), {"a": 1.0})
    with pytest.raises(NotImplementedError):
        evaluator(model)


def test_a_name_that_metrics_begin_with_is_a_prefix_like_others() -> None:
    data = ({"q": "t1"}, {f"d{number}": f"t{number}" for number in range(20)}, {"q": {"d1", "d2"}})
    evaluator = InformationRetrievalEvaluator(*data, name="cosine")
    metrics = evaluator(Texts())
    assert evaluator.primary_metric == "cosine_cosine_ndcg@10"
    assert SequentialEvaluator([evaluator])(Texts())["sequential_score"] == metrics["cosine_cosine_ndcg@10"]


def test_a_primary_metric_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the primary metric of Fixed must be one of \['a'\], got 'b'"):
        SequentialEvaluator([Fixed({"a": 1.0}, "b")])(None)
    with pytest.raises(ValueError, match=r"the primary metric of Fixed must be one of \[\], got None"):
        SequentialEvaluator([Fixed({})])(None)


def test_a_file_tells_which_columns_its_rows_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "x.csv").touch()  # as an upload may have left it
    for row in ({"epoch": 1, "a": 2}, {"epoch": 2, "a": 3}, {"epoch": 3, "b": 4}, {"epoch": 4, "b": 5}):
        append_row(tmp_path, "x.csv", row)
    assert (tmp_path / "x.csv").read_text().split() == ["epoch,a", "1,2", "2,3", "epoch,b", "3,4", "4,5"]
    [message] = caplog.messages
    assert message.endswith(
        "x.csv has columns ['epoch', 'a'] so far; from now on they are ['epoch', 'b'], under a new header"
    )


@pytest.mark.parametrize("name", ["a/b", "../../x"])
def test_a_name_leads_to_no_other_folder(name: str, tmp_path: Path) -> None:
    data = ({"q": "a"}, {"d": "b", "e": "c"}, {"q": {"e"}})
    folder = tmp_path / "results"
    metrics = InformationRetrievalEvaluator(*data, name=name, write_predictions=True)(Texts(), str(folder))
    assert f"{name}_cosine_ndcg@10" in metrics
    assert list(tmp_path.iterdir()) == [folder]
    assert sorted(path.suffix for path in folder.iterdir()) == [".csv", ".jsonl"]


def test_metrics_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sbert_ray"):
        TranslationEvaluator(*PAIR, name="dev")(Texts())
    [message] = caplog.messages
    assert message.startswith("Translation: dev_src2trg_accuracy 0.")


def test_evaluators_are_described_as_the_peers() -> None:
    for package, name in classes():
        ours, theirs = (
            getattr(importlib.import_module(f"{top}.{package}.evaluation"), name)
            for top in ("sbert_ray", "sentence_transformers")
        )
        if isinstance(ours, type) and issubclass(ours, Evaluator) and ours is not Evaluator:
            assert object.__new__(ours).description == object.__new__(theirs).description


def test_a_model_of_the_peer_is_told_our_metrics(minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = (["a cat", "a dog", "bread"], ["cats", "dogs", "yeast"], ["yeast", "dogs", "cats"])
    told = []
    for kind in (TripletEvaluator, peer.TripletEvaluator):
        model = SentenceTransformer(str(minilm), device="cpu")
        kind(*texts, name="dev", margin=0.1)(model)
        told += model.model_card_data.eval_results_dict.values()
    assert told[0] == pytest.approx(told[1])
