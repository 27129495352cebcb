"""How each library loads the model of a benchmark and runs it, within `benchmarks.child`.

Every library is imported where it is used: none of them is in all virtual environments.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.child import Groups, Job, Loaded, Loader, Shapes
from benchmarks.training_loader import TrainingStep

CLASSES = {"encode": "SentenceTransformer", "predict": "CrossEncoder", "encode_sparse": "SparseEncoder"}
METHODS = {"encode": "encode", "predict": "predict", "encode_sparse": "encode"}
RUNS = {"encode": "embed_prepared", "predict": "score_prepared", "encode_sparse": "embed_prepared"}
"""Our methods that tell what work they took."""
OPENVINO_INT8 = "openvino/openvino_model_qint8.xml"
DEFAULT_BATCH_SIZE = 256
"""Of fastembed."""
MAX_LENGTH = 256
"""Tokens of all-MiniLM-L6-v2, for libraries that do not read it where sentence-transformers keeps it."""


def _as_array(outputs: list[Any]) -> NDArray[np.float32]:
    arrays = [output.to_dense().numpy() if hasattr(output, "to_dense") else output for output in outputs]
    return np.concatenate([np.asarray(array, np.float32) for array in arrays])


class Ours:
    """sbert_ray."""

    def __init__(self, job: Job, dtype: str | None = None, max_batch_tokens: int | None = None, **options: Any) -> None:
        import sbert_ray
        from sbert_ray.inference.threads import limit_threads

        limit_threads(job.threads)
        kwargs = {} if dtype is None else {"model_kwargs": {"dtype": dtype}}
        self._task = job.task
        self._max_batch_tokens = max_batch_tokens
        self._model = getattr(sbert_ray, CLASSES[job.task])(job.model, device="cpu", **kwargs, **options)
        self._groups: Groups = []

    def run(self, groups: Groups, batch_size: int | None) -> list[Any]:
        """See `Loaded`."""
        self._groups = groups
        method = getattr(self._model, METHODS[self._task])
        return [method(group, max_batch_tokens=self._max_batch_tokens, **_given(batch_size)) for group in groups]

    def shapes(self) -> Shapes:
        """See `Loaded`; our runs count what they do."""
        lengths, num_positions = [], 0
        for group in self._groups:
            prepared = self._model.prepare(group)
            lengths += prepared.lengths.tolist()
            run = getattr(self._model, RUNS[self._task])(prepared, max_batch_tokens=self._max_batch_tokens)
            num_positions += run.num_padded_tokens
        return Shapes(lengths, num_positions)

    def array(self, outputs: list[Any]) -> NDArray[np.float32]:
        """See `Loaded`."""
        return _as_array(outputs)


class Peer:
    """A model of sentence-transformers, on any backend."""

    def __init__(self, model: Any, job: Job) -> None:
        self._model, self._method = model, METHODS[job.task]
        self._masks: list[Any] = []
        model[0].register_forward_pre_hook(self._observe)

    def _observe(self, _: Any, inputs: tuple[Any, ...]) -> None:
        self._masks.append(inputs[0]["attention_mask"])

    def run(self, groups: Groups, batch_size: int | None) -> list[Any]:
        """See `Loaded`."""
        self._masks = []
        method = getattr(self._model, self._method)
        return [method(group, show_progress_bar=False, **_given(batch_size)) for group in groups]

    def shapes(self) -> Shapes:
        """See `Loaded`; the batches were observed."""
        lengths = [length for mask in self._masks for length in mask.sum(dim=1).tolist()]
        return Shapes(lengths, sum(mask.numel() for mask in self._masks))

    def array(self, outputs: list[Any]) -> NDArray[np.float32]:
        """See `Loaded`."""
        return _as_array(outputs)


class FastEmbed:
    """fastembed, on the ONNX file that sentence-transformers exports."""

    def __init__(self, job: Job) -> None:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        folder = _cached(job, "onnx")
        if not folder.exists():
            raise FileNotFoundError(f"fastembed runs what the side 'onnx' exports: run that first, {folder} is absent")
        TextEmbedding.add_custom_model(
            model="local/model",
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(url="http://localhost/never-asked"),  # it must have one, the path below wins
            dim=384,
            model_file="onnx/model.onnx",
        )
        self._model = TextEmbedding("local/model", specific_model_path=str(folder), threads=job.threads)
        self._tokenizer = self._model.model.tokenizer
        # It cuts texts at 128, which is what the tokenizer was made for: not the same work, nor the same embeddings.
        self._tokenizer.enable_truncation(MAX_LENGTH)
        self._batches: Groups = []

    def run(self, groups: Groups, batch_size: int | None) -> list[Any]:
        """See `Loaded`."""
        size = batch_size or DEFAULT_BATCH_SIZE
        self._batches = [group[start : start + size] for group in groups for start in range(0, len(group), size)]
        return [np.stack(list(self._model.embed(group, batch_size=size))) for group in groups]

    def shapes(self) -> Shapes:
        """See `Loaded`; batches are cut in the order of the texts."""
        batches = [self._tokenizer.encode_batch(batch) for batch in self._batches]
        lengths = [sum(encoding.attention_mask) for batch in batches for encoding in batch]
        return Shapes(lengths, sum(len(encoding.ids) for batch in batches for encoding in batch))

    def array(self, outputs: list[Any]) -> NDArray[np.float32]:
        """See `Loaded`."""
        return _as_array(outputs)


def _given(batch_size: int | None) -> dict[str, int]:
    return {} if batch_size is None else {"batch_size": batch_size}


def _torch_peer(job: Job, dtype: str | None = None, **options: Any) -> Loaded:
    import sentence_transformers
    import torch

    torch.set_num_threads(job.threads)
    kwargs = {} if dtype is None else {"model_kwargs": {"dtype": getattr(torch, dtype)}}
    return Peer(getattr(sentence_transformers, CLASSES[job.task])(job.model, device="cpu", **kwargs, **options), job)


def _onnx_peer(job: Job, precision: str = "float32") -> Loaded:
    import onnxruntime
    from sentence_transformers import SentenceTransformer

    folder = _cached(job, "onnx", _export_onnx)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = job.threads
    name = "model" if precision == "float32" else "model_qint8_avx512_vnni"
    kwargs = {"file_name": f"onnx/{name}.onnx", "provider": "CPUExecutionProvider", "session_options": options}
    return Peer(SentenceTransformer(str(folder), backend="onnx", device="cpu", model_kwargs=kwargs), job)


def _export_onnx(job: Job, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.backend import export_dynamic_quantized_onnx_model

    model = SentenceTransformer(job.model, backend="onnx", device="cpu")
    model.save_pretrained(str(folder))
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder))


def _openvino_peer(job: Job, precision: str = "float32") -> Loaded:
    folder = _cached(job, "openvino", _export_openvino)
    name = "openvino/openvino_model.xml" if precision == "float32" else OPENVINO_INT8
    return Peer(_load_openvino(folder, job.threads, name), job)


def _load_openvino(folder: Path, threads: int, name: str | None = None) -> Any:
    from sentence_transformers import SentenceTransformer

    # Its own choice would be bfloat16 where the processor has AMX: not what float32 is compared with.
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    kwargs = {"ov_config": config} | ({} if name is None else {"file_name": name})
    return SentenceTransformer(str(folder), backend="openvino", device="cpu", model_kwargs=kwargs)


def _export_openvino(job: Job, folder: Path) -> None:
    """Write the model as float32, and as int8 by nncf, as sentence-transformers' own export asks the hub for texts."""
    import nncf
    import openvino

    model = _load_openvino(Path(job.model), job.threads)
    model.save_pretrained(str(folder))

    def tokens(text: str) -> dict[str, Any]:
        found = model.tokenizer([text], truncation=True, max_length=model.max_seq_length, return_tensors="np")
        return dict(found)

    float32 = openvino.Core().read_model(folder / "openvino" / "openvino_model.xml")
    texts = nncf.Dataset(job.calibration, tokens)
    int8 = nncf.quantize(
        float32, texts, model_type=nncf.ModelType.TRANSFORMER, subset_size=max(len(job.calibration), 1)
    )
    openvino.save_model(int8, folder / OPENVINO_INT8)


def _cached(job: Job, name: str, make: Callable[[Job, Path], None] | None = None) -> Path:
    """Return the folder where a form of the model is kept, after ``make`` has written it if it is absent."""
    weights = hashlib.blake2b(Path(job.model, "model.safetensors").read_bytes(), digest_size=6).hexdigest()
    folder = Path(job.cache, f"{name}-{weights}")
    if make and not folder.exists():
        draft = folder.with_name(f".{folder.name}.{os.getpid()}")
        draft.mkdir(parents=True)
        make(job, draft)
        draft.replace(folder)
    return folder


LOADERS: dict[str, Loader] = {
    "sbert_ray": Ours,
    "torch": _torch_peer,
    "onnx": _onnx_peer,
    "openvino": _openvino_peer,
    "fastembed": FastEmbed,
    "training": TrainingStep,
}
"""By the name that a side gives."""
