"""The modules that a checkpoint names, checked before anything of them is loaded. Knows no torch."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sbert_ray.modules import MODULES
from sbert_ray.modules.configs import read_json, read_transformer_config
from sbert_ray.modules.modalities import IMAGE_TEXT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sbert_ray.modules.module import LoadOptions, Module

ROUTER_CONFIG_NAMES = ("router_config.json", "config.json")
"""Of the files in a Router's folder, the one that names its modules; the latter is the name of before 5.0."""

_PACKAGES = ("sentence_transformers", "sbert_ray")
_RENAMED = {"Asym": "Router", "CLIPModel": "Transformer", "MLMTransformer": "Transformer"}
"""Modules by the names of earlier versions."""
_CONFIGS: dict[str, dict[str, Any]] = {
    "CLIPModel": IMAGE_TEXT_SETTINGS,
    "MLMTransformer": {"transformer_task": "fill-mask"},
}
"""What the names of earlier versions stand for."""


@dataclass(frozen=True)
class ModuleEntry:
    """One module of a checkpoint: its class name and its folder, relative to the checkpoint's."""

    kind: str
    path: str
    config: Mapping[str, Any] | None = None
    """The constructor's arguments of a module without files; of a Transformer, what wins over its own config."""
    kwargs: tuple[str, ...] = ()
    """Further arguments that the module's ``forward`` takes from the model's."""
    is_plain: bool = False
    """Of a Transformer: whether its own config does not count, as it is of another type of model, if there is any."""


@dataclass(frozen=True)
class RouterEntry:
    """What the config of a Router names."""

    modules: dict[str, ModuleEntry]
    """By the name of their folder; one may be in several routes."""
    structure: dict[str, list[str]]
    """The names of the modules of each route."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """The Router's other arguments."""

    @property
    def routes(self) -> dict[str, list[ModuleEntry]]:
        """The modules of each route."""
        return {route: [self.modules[name] for name in names] for route, names in self.structure.items()}


def module_entry(folder: Path, source: str, dotted: Any, path: Any) -> ModuleEntry:
    """Return a module by its type and path, as ``source`` in ``folder`` gives them.

    Raises:
        ValueError: The type is unknown, or the path leaves the folder.
    """
    package, _, kind = str(dotted).rpartition(".")
    if package.partition(".")[0] not in _PACKAGES:
        raise ValueError(
            f"{source} in {str(folder)!r} names the custom module {dotted!r}, which runs code from the "
            f"checkpoint; that is not supported, even with trust_remote_code. Known modules are {sorted(MODULES)}"
        )
    config = _CONFIGS.get(kind)
    kind = _RENAMED.get(kind, kind)
    if kind not in MODULES:
        raise ValueError(
            f"unknown module {dotted!r} in {source} of {str(folder)!r}; known modules are {sorted(MODULES)}"
        )
    inside = posix_path(path)
    if leaves_folder(inside):
        raise ValueError(f"a module's path must stay within {str(folder)!r}, got {path!r}")
    return ModuleEntry(kind, str(inside) if inside.parts else "", config)


def transformer_config(folder: Path, entry: ModuleEntry) -> dict[str, Any]:
    """Return the config of a Transformer module: that of its folder, and what wins over it."""
    own = {} if entry.is_plain else read_transformer_config(folder / entry.path)
    return own | dict(entry.config or {})


def posix_path(name: Any) -> PurePosixPath:
    """Return a path that a checkpoint gives, whatever system wrote it."""
    return PurePosixPath(str(name).replace("\\", "/"))


def leaves_folder(path: PurePosixPath) -> bool:
    """Return whether a relative path may point out of the folder that it is in."""
    return path.is_absolute() or ".." in path.parts


def read_router(folder: Path) -> RouterEntry:
    """Return what the config of the Router in ``folder`` names.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no Router's, or a module is unknown or lies outside of the folder.
    """
    path = next((folder / name for name in ROUTER_CONFIG_NAMES if (folder / name).exists()), None)
    if path is None:
        raise FileNotFoundError(f"{str(folder)!r} lacks router_config.json, which says what a Router is made of")
    config = read_json(path)
    if not isinstance(config, dict) or not all(isinstance(config.get(key), dict) for key in ("types", "structure")):
        raise ValueError(f"{str(path)!r} must have the objects 'types' and 'structure'")
    modules = {name: module_entry(folder, path.name, kind, name) for name, kind in config["types"].items()}
    structure = {str(route): list(names) for route, names in config["structure"].items()}
    if unknown := sorted({name for names in structure.values() for name in names} - modules.keys()):
        raise ValueError(f"the routes in {str(path)!r} must be of the modules {sorted(modules)}, got {unknown}")
    empty = [route for route, names in structure.items() if not names]
    if empty or not structure:
        raise ValueError(f"every route in {str(path)!r} must have a module, got none for {empty or 'any'}")
    parameters = dict(config.get("parameters") or {})
    if mappings := parameters.get("route_mappings"):
        parameters["route_mappings"] = {_mapping_key(key, path): route for key, route in mappings.items()}
    return RouterEntry(modules, structure, parameters)


def _mapping_key(text: str, path: Path) -> tuple[Any, Any]:
    try:
        key = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        key = None
    if not isinstance(key, tuple) or len(key) != 2:
        raise ValueError(f"route_mappings in {str(path)!r} must go from '(task, modality)', got {text!r}")
    return key


def nested_entries(folder: Path, entry: ModuleEntry) -> Iterator[ModuleEntry]:
    """Yield a module or, in the place of a Router, the modules of its routes, their paths relative to ``folder``."""
    if entry.kind != "Router":
        yield entry
        return
    for inner in read_router(folder / entry.path).modules.values():
        path = str(PurePosixPath(entry.path) / inner.path)
        yield from nested_entries(folder, replace(inner, path=path))


def nested_routes(folder: Path, entry: ModuleEntry) -> Iterator[list[ModuleEntry]]:
    """Yield the modules of each route of a Router, their paths relative to ``folder``."""
    for route in read_router(folder / entry.path).routes.values():
        yield [replace(inner, path=str(PurePosixPath(entry.path) / inner.path)) for inner in route]


def load_module(folder: Path, entry: ModuleEntry, options: "LoadOptions", before: "Sequence[Module]" = ()) -> "Module":
    """Load a module of a checkpoint.

    Args:
        folder: The checkpoint's.
        entry: The module.
        options: How to load it.
        before: The modules before it.
    """
    kind = getattr(import_module("sbert_ray.modules"), entry.kind)
    module: Module
    if entry.kind == "Transformer":
        module = kind.load(folder / entry.path, options, entry.config, entry.is_plain)
    elif entry.config is None:
        module = kind.load(folder / entry.path, options)
    else:
        module = kind.default(entry.config, before)
    return module
