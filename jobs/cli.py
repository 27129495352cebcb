"""The console script `sbert-ray`: a sub-command per job."""

import sys
from importlib import import_module
from typing import NoReturn

JOBS = {
    "embed": ("jobs.embed", "EmbedJob", "embed the texts or images of a dataset with a dense or sparse model"),
    "rerank": ("jobs.rerank", "RerankJob", "score and rank candidates (query, document) with a cross-encoder"),
    "evaluate": ("jobs.evaluate", "EvaluateJob", "evaluate a model, or embeddings, on a dataset"),
    "verify": ("jobs.verify", "VerifyJob", "prove that an output is whole: each input row exactly once"),
}


def main() -> NoReturn:
    """Run the job that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in JOBS:
        width = max(map(len, JOBS))
        lines = [f"  {job:<{width}}  {what}" for job, (_, _, what) in JOBS.items()]
        usage = "\n".join(["usage: sbert-ray JOB [--config FILE] [--option VALUE ...]", "", *lines, ""])
        wanted_help = name in ("-h", "--help")
        (sys.stdout if wanted_help else sys.stderr).write(usage if wanted_help else f"unknown job {name!r}\n{usage}")
        sys.exit(0 if wanted_help else 2)
    module, job, _ = JOBS[name]
    sys.exit(getattr(import_module(module), job).main(sys.argv[2:]))


if __name__ == "__main__":
    main()
