"""Logging beside progress bars."""

import logging
from pathlib import Path

import pytest
from tqdm import tqdm

import sbert_ray
from sbert_ray import LoggingHandler
from sbert_ray.inference.progress import told_of_batches


@pytest.fixture
def logger() -> logging.Logger:
    logger = logging.Logger("of this test")
    logger.addHandler(LoggingHandler())
    return logger


def test_records_go_to_the_standard_output(logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    logger.handlers[0].setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.info("%d rows", 3)
    assert capsys.readouterr().out == "INFO 3 rows\n"


def test_a_bar_is_taken_away_while_a_record_is_written(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    with tqdm(total=2) as bar:
        bar.update(1)
        capsys.readouterr()
        logger.warning("half of them")
        out, err = capsys.readouterr()
        assert out == "half of them\n"
        assert "50%" in err  # drawn anew, below


def test_a_level_is_the_least_that_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.Logger("of this test")
    logger.addHandler(LoggingHandler(logging.WARNING))
    logger.info("a")
    logger.error("b")
    assert capsys.readouterr().out == "b\n"


def test_a_record_that_cannot_be_formatted_stops_nobody(
    logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.info("%d rows", "three")
    assert "--- Logging error ---" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["SentenceTransformer", "SparseEncoder", "CrossEncoder"])
def test_a_listener_is_told_of_batches(
    kind: str, tiny_checkpoint: Path, tiny_splade: Path, tiny_cross_encoder: Path
) -> None:
    folders = {"SentenceTransformer": tiny_checkpoint, "SparseEncoder": tiny_splade, "CrossEncoder": tiny_cross_encoder}
    model = getattr(sbert_ray, kind)(str(folders[kind]), device="cpu")
    texts = ["the cat", "a dog ran", "red"]
    rows: list[int] = []
    with told_of_batches(rows.append):
        if kind == "CrossEncoder":
            model.predict([(text, text) for text in texts])
        else:
            model.encode(texts)
    assert sum(rows) == 3
    if kind != "CrossEncoder":
        model.encode(texts)  # of which nobody is told
    assert sum(rows) == 3
