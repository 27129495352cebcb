"""What can be evaluated: the tasks, the tables that they read, and the columns of each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator

from actors.evaluator import CROSS_ENCODER, DENSE, SPARSE
from jobs.job import as_tuple
from sbert_ray.data.errors import InputError
from sbert_ray.data.examples import Chosen, Role
from sbert_ray.models.layout import stored_type
from sbert_ray.modules.configs import is_classifier, read_json

if TYPE_CHECKING:
    from jobs.evaluate import EvaluateJob

KINDS = {"SentenceTransformer": DENSE, "SparseEncoder": SPARSE, "CrossEncoder": CROSS_ENCODER}
EMBEDDING = (DENSE, SPARSE)
SEVERAL = 1000
ALL = (DENSE, SPARSE, CROSS_ENCODER)
SENTENCES = (Role("sentence1", "sentence1", "text"), Role("sentence2", "sentence2", "text"))
SIDES = (Role("source", "source", "text"), Role("target", "target", "text"))


@dataclass(frozen=True)
class Task:
    """What is evaluated.

    Args:
        tables: the columns of each table, by the name of the option that says where it is.
        kinds: of the models that it is for.
        max_similarity: how many similarities may be asked for.
        max_at_k: how many ranks.
        has_prompts: whether queries and documents may have prompts of their own.
    """

    tables: Mapping[str, tuple[Role, ...]]
    kinds: tuple[str, ...] = EMBEDDING
    max_similarity: int = 0
    max_at_k: int = 0
    has_prompts: bool = False

    @property
    def roles(self) -> list[str]:
        """The names of all roles."""
        return [role.name for roles in self.tables.values() for role in roles]


TASKS: Mapping[str, Task] = {
    "retrieval": Task(
        {
            "queries": (Role("query_id", "_id", "id"), Role("query_text", "text", "text", takes_several=True)),
            "corpus": (Role("corpus_id", "_id", "id"), Role("corpus_text", "text", "text", takes_several=True)),
            "qrels": (
                Role("judged_query", "query-id", "id"),
                Role("judged_document", "corpus-id", "id"),
                Role("relevance", "score", "number"),
            ),
        },
        max_similarity=SEVERAL,
        max_at_k=SEVERAL,
        has_prompts=True,
    ),
    "similarity": Task({"input": (*SENTENCES, Role("score", "score", "number"))}, kinds=ALL, max_similarity=SEVERAL),
    "binary_classification": Task(
        {"input": (*SENTENCES, Role("label", "label", "label"))}, kinds=ALL, max_similarity=SEVERAL
    ),
    "triplet": Task(
        {"input": tuple(Role(name, name, "text") for name in ("anchor", "positive", "negative"))},
        max_similarity=SEVERAL,
        has_prompts=True,
    ),
    "reranking": Task(
        {
            "input": (
                Role("query", "query", "text"),
                Role("positive", "positive", "texts"),
                Role("negative", "negative", "texts"),
                Role("documents", "", "texts"),
            )
        },
        kinds=ALL,
        max_similarity=1,
        max_at_k=1,
        has_prompts=True,
    ),
    "paraphrase_mining": Task(
        {
            "input": (Role("id", "id", "id"), Role("text", "text", "text", takes_several=True)),
            "duplicates": (Role("id1", "id1", "id"), Role("id2", "id2", "id")),
        },
        kinds=(DENSE,),
    ),
    "translation": Task({"input": SIDES}),
    "mse": Task({"input": SIDES}),
}


def saved_as(folder: Path) -> str:
    """Return the type of model that a checkpoint is: of plain ones, those that classify are cross-encoders."""
    if (folder / "modules.json").exists():
        return stored_type(folder)
    config = folder / "config.json"
    names = read_json(config).get("architectures") if config.exists() else None
    return "CrossEncoder" if is_classifier(names) else "SentenceTransformer"


def as_pairs(value: object) -> object:
    """Take a mapping of roles to columns for a list of ``ROLE=COLUMN``."""
    if not isinstance(value, Mapping):
        return as_tuple(value)
    columns = {role: found if isinstance(found, list | tuple) else [found] for role, found in value.items()}
    return [f"{role}={'' if column is None else column}" for role, found in columns.items() for column in found]


Columns = Annotated[tuple[str, ...], BeforeValidator(as_pairs)]
"""Columns of roles, as ``ROLE=COLUMN`` or a mapping."""


def chosen_columns(pairs: Iterable[str], task: str) -> Chosen:
    """Return the columns that are chosen for roles of a task.

    Raises:
        ValueError: if a role is unknown, or has several columns and may not.
    """
    known = {role.name: role for roles in TASKS[task].tables.values() for role in roles}
    found: dict[str, list[str]] = {}
    for pair in pairs:
        role, mark, column = pair.partition("=")
        if not mark:
            raise ValueError(f"must be ROLE=COLUMN, got {pair!r}")
        if role not in known:
            raise ValueError(f"{task} has no role {role!r}; its roles are {list(known)}")
        found.setdefault(role, []).append(column)
        if len(found[role]) > 1 and not known[role].takes_several:
            raise ValueError(f"{role} must have one column, got {found[role]}")
    return found


def chosen_roles(task: str, table: str, chosen: Chosen, kind: str) -> tuple[Role, ...]:
    """Return the roles that are read of a table.

    Raises:
        InputError: if two of them exclude each other, or are not for a kind of model.
    """
    roles = TASKS[task].tables[table]
    if task != "reranking":
        return roles
    if "documents" not in chosen:
        return tuple(role for role in roles if role.name != "documents")
    if kind != CROSS_ENCODER:
        raise InputError(f"--columns: documents is for cross-encoders, and the model is {kind}; give negative instead")
    if "negative" in chosen:
        raise InputError("--columns: give documents or negative, not both")
    return tuple(role for role in roles if role.name != "negative")


def check_options(job: "EvaluateJob") -> None:
    """Make sure that options which depend on each other fit.

    Raises:
        ValueError: if they do not.
    """
    task = TASKS[job.task]
    in_place = {"queries": job.query_embeddings, "corpus": job.corpus_embeddings}
    for name in ("input", "duplicates", "queries", "corpus", "qrels"):
        given, instead = getattr(job, name), in_place.get(name)
        if name not in task.tables and (given or instead):
            raise ValueError(f"{name} is not for {job.task}, which reads {list(task.tables)}")
        if name in task.tables and bool(given) == bool(instead):
            other = f" or {'query' if name == 'queries' else name}_embeddings" if name in in_place else ""
            raise ValueError(f"{job.task} needs {name}{other}" + (", not both" if given else ""))
    is_embedded = bool(job.query_embeddings and job.corpus_embeddings)
    if is_embedded == bool(job.model):
        raise ValueError(
            "model goes without query_embeddings and corpus_embeddings" if job.model else "model is needed"
        )
    if bool(job.teacher) != (job.task == "mse"):
        raise ValueError("teacher is needed for mse, and only there")
    if job.max_active_dims and (job.query_embeddings or job.corpus_embeddings):
        raise ValueError("max_active_dims is for texts, not for embeddings that are there already")
    _check_numbers(job)
    _check_prompts(job)


def _check_numbers(job: "EvaluateJob") -> None:
    for name in ("similarity", "at_k"):
        values, most = getattr(job, name), getattr(TASKS[job.task], f"max_{name}")
        if len(values) > most == 1:
            raise ValueError(f"{name} must be one for {job.task}, got {list(values)}")
        if len(values) > most:
            known = [other for other, task in TASKS.items() if getattr(task, f"max_{name}")]
            raise ValueError(f"{name} is for {known}, not for {job.task}")


def _check_prompts(job: "EvaluateJob") -> None:
    if job.prompt is not None and job.prompt_name is not None:
        raise ValueError("give prompt or prompt_name, not both")
    if job.task == "retrieval" and (job.prompt is not None or job.prompt_name is not None):
        raise ValueError("retrieval has query_prompt and document_prompt instead of prompt and prompt_name")
    if not TASKS[job.task].has_prompts and (job.query_prompt is not None or job.document_prompt is not None):
        raise ValueError(f"query_prompt and document_prompt are not for {job.task}; see prompt and prompt_name")
    for name, embeddings in (("query", job.query_embeddings), ("document", job.corpus_embeddings)):
        if embeddings and getattr(job, f"{name}_prompt") is not None:
            raise ValueError(f"{name}_prompt is for texts, not for embeddings that are there already")
