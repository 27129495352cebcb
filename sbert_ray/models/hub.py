"""Where a checkpoint lies: in a local folder, or in a repository on the Hugging Face hub. Knows no torch."""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CLASSIC_MODELS = frozenset(  # names without an owner that the hub knows; any other short name is sentence-transformers/
    """
    albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1 albert-xlarge-v2 albert-xxlarge-v1
    albert-xxlarge-v2 bert-base-cased bert-base-cased-finetuned-mrpc bert-base-chinese bert-base-german-cased
    bert-base-german-dbmdz-cased bert-base-german-dbmdz-uncased bert-base-multilingual-cased
    bert-base-multilingual-uncased bert-base-uncased bert-large-cased bert-large-cased-whole-word-masking
    bert-large-cased-whole-word-masking-finetuned-squad bert-large-uncased bert-large-uncased-whole-word-masking
    bert-large-uncased-whole-word-masking-finetuned-squad camembert-base ctrl distilbert-base-cased
    distilbert-base-cased-distilled-squad distilbert-base-german-cased distilbert-base-multilingual-cased
    distilbert-base-uncased distilbert-base-uncased-distilled-squad distilbert-base-uncased-finetuned-sst-2-english
    distilgpt2 distilroberta-base gpt2 gpt2-large gpt2-medium gpt2-xl openai-gpt roberta-base
    roberta-base-openai-detector roberta-large roberta-large-mnli roberta-large-openai-detector t5-11b t5-3b t5-base
    t5-large t5-small transfo-xl-wt103 xlm-clm-ende-1024 xlm-clm-enfr-1024 xlm-mlm-100-1280 xlm-mlm-17-1280
    xlm-mlm-en-2048 xlm-mlm-ende-1024 xlm-mlm-enfr-1024 xlm-mlm-enro-1024 xlm-mlm-tlm-xnli15-1024
    xlm-mlm-xnli15-1024 xlm-roberta-base xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch
    xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english
    xlm-roberta-large-finetuned-conll03-german xlnet-base-cased xlnet-large-cased
    """.split()
)

ORGANIZATIONS = {
    "SentenceTransformer": "sentence-transformers",
    "SparseEncoder": "sparse-encoder",
    "CrossEncoder": "cross-encoder",
}
"""Owner on the hub of models with a short name, by type of model."""

_NOT_NEEDED = ["onnx/*", "openvino/*", "*.onnx", "*.h5", "*.ot", "*.msgpack", "*.tflite", "*.gguf", "*.ckpt", "*.pt"]
_PICKLES = ["*.bin", "*.pkl", "*.pickle"]
PASSING_STATUS = (408, 429, 500, 502, 503, 504)
"""Answers of the hub that another try may not get."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine."""

    name: str
    """As the user gave it."""
    folder: Path
    commit: str | None = None
    """The hub's commit; None for a local folder."""
    repository: str | None = None
    """Its id on the hub, with the owner; None for a local folder."""

    @cached_property
    def revision(self) -> str:
        """The hub's commit, or ``sha256:`` and the digest of the local folder's files, which takes reading them."""
        return self.commit or folder_digest(self.folder)


def resolve_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: bool | str | None = None,
    cache_folder: str | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    model_type: str = "SentenceTransformer",
) -> Checkpoint:
    """Find a checkpoint, downloading it if need be.

    Args:
        name_or_path: A local folder or the id of a repository on the hub.
        revision: Branch, tag or commit on the hub.
        token: Token of the hub, or whether to use the stored one.
        cache_folder: Where downloads are kept; $SENTENCE_TRANSFORMERS_HOME or the hub's default if None.
        local_files_only: Whether to look among earlier downloads only.
        allow_pickle: Whether pickled weights are downloaded too.
        model_type: The type of model, whose own organization on the hub a name without an owner belongs to.

    Raises:
        FileNotFoundError: It is not here and cannot be fetched.
        ConnectionError: The same, and that may pass.
        NotADirectoryError: It is a file.
        ValueError: A revision is given for a local folder.
    """
    name, path = os.fspath(name_or_path), Path(name_or_path)
    if path.is_dir():
        if revision is not None:
            raise ValueError(f"revision must be None for the local folder {name!r}, got {revision!r}")
        return Checkpoint(name, path.resolve())
    if path.exists():
        raise NotADirectoryError(f"a model must be a folder or a hub id, {name!r} is a file")
    if name.count("/") > 1 or path.is_absolute() or name.startswith("."):
        raise FileNotFoundError(f"there is no model folder {name!r}")
    repository = _repository(name, model_type)
    cache_folder = cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME")
    ignored = _NOT_NEEDED if allow_pickle else _NOT_NEEDED + _PICKLES
    folder = _download(repository, revision, token, cache_folder, local_files_only, ignored)
    return Checkpoint(name, folder, folder.name, repository)  # the hub's cache names a snapshot by its commit


def is_sentence_transformer_model(
    model_name_or_path: str | os.PathLike[str],
    token: bool | str | None = None,
    cache_folder: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> bool:
    """Return whether a model has a ``modules.json``, as those of this library have and plain checkpoints have not.

    Args:
        model_name_or_path: A local folder or the id of a repository on the hub.
        token: Token of the hub, or whether to use the stored one.
        cache_folder: Where downloads are kept; $SENTENCE_TRANSFORMERS_HOME or the hub's default if None.
        revision: Branch, tag or commit on the hub.
        local_files_only: Whether to look among earlier downloads only; what is not among them is no such model.

    Raises:
        ConnectionError: The hub cannot be reached.
        HfHubHTTPError: It refuses to say: there is no such repository, or it needs another token.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    path = Path(model_name_or_path)
    if path.is_dir():
        return (path / "modules.json").is_file()
    try:
        hf_hub_download(
            _repository(os.fspath(model_name_or_path), "SentenceTransformer"),
            "modules.json",
            revision=revision,
            token=token,
            cache_dir=cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME"),
            local_files_only=local_files_only,
        )
    except LocalEntryNotFoundError as error:
        if local_files_only or constants.HF_HUB_OFFLINE:
            return False
        raise ConnectionError(f"the hub cannot be reached to look for model {str(path)!r}") from error
    except (EntryNotFoundError, HFValidationError):
        return False
    return True


def _repository(name: str, model_type: str) -> str:
    is_short = "/" not in name and name.lower() not in CLASSIC_MODELS
    return f"{ORGANIZATIONS[model_type]}/{name}" if is_short else name


def _download(
    repository: str,
    revision: str | None,
    token: bool | str | None,
    cache_folder: str | None,
    local_files_only: bool,
    ignored: list[str],
) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = repository if revision is None else f"{repository} at revision {revision}"
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                token=token,
                cache_dir=cache_folder,
                local_files_only=local_files_only,
                ignore_patterns=ignored,
            )
        )
    except LocalEntryNotFoundError:
        is_passing = not local_files_only and not constants.HF_HUB_OFFLINE
        reason = "the hub cannot be reached" if is_passing else "downloads are off"
    except HFValidationError:
        is_passing = False
        reason = "that is neither a folder nor a valid hub id"
    except HfHubHTTPError as error:  # its text may quote the request, so only the status goes on
        status = error.response.status_code
        is_passing = status in PASSING_STATUS
        reason = f"the hub answered {status}" + ("" if is_passing else "; a private or gated model needs a token")
    raise (ConnectionError if is_passing else FileNotFoundError)(
        f"model {wanted!r} is not on this machine and {reason}; pass the path of a checkpoint folder, or download the "
        "model where there is a network and copy it"
    )


def folder_digest(folder: Path) -> str:
    """Return ``sha256:`` and a digest of the names and contents of the files of a checkpoint, its card aside."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.name == "README.md" or any(part.startswith(".") for part in name.parts):
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{name.as_posix()}\0{content}\n".encode())
    return f"sha256:{digest.hexdigest()}"
