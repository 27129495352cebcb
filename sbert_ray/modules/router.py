"""Several chains of modules, one of which is taken for each input: by what it is for, or what kind it is."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from torch import nn

from sbert_ray.inference.inputs import KINDS
from sbert_ray.inference.mixed import Labeled, by_kind
from sbert_ray.inference.prepared import Features, Prepared
from sbert_ray.modules.entries import ROUTER_CONFIG_NAMES, load_module, read_router
from sbert_ray.modules.module import InputModule, LoadOptions, Module, known_keys

RouteMappings = Mapping[tuple[str | None, Any], str]
"""Routes by (task, modality), where None stands for any."""


class Router(InputModule):
    """Sends inputs through one of several chains of modules: its routes.

    The route is that of `route_mappings` for (task, modality), else for (task, any), else for (any, modality), else
    for (any, any); else that with the task's name, else that with the modality's name, else, where no task was given,
    the default one. As the first module of a model it reads inputs by the first module of their route.

    Args:
        sub_modules: For each route its modules; one module may be in several routes.
        default_route: The route of inputs without a task.
        allow_empty_key: Whether the first route is the default one where ``default_route`` is None.
        route_mappings: Routes by (task, modality).

    Raises:
        ValueError: There is no route, a route has no modules, or a route that is named is not there.
    """

    public_path = "sentence_transformers.base.modules.router.Router"
    config_name = ROUTER_CONFIG_NAMES[0]
    save_in_root: ClassVar[bool] = True
    forward_kwargs = frozenset({"task", "modality"})

    def __init__(
        self,
        sub_modules: Mapping[str, Sequence[Module]],
        default_route: str | None = None,
        allow_empty_key: bool = True,
        route_mappings: RouteMappings | None = None,
    ) -> None:
        super().__init__()
        if not sub_modules:
            raise ValueError("sub_modules must have at least one route, got none")
        if empty := [route for route, modules in sub_modules.items() if not len(modules)]:
            raise ValueError(f"every route must have a module, got none for {empty}")
        mappings = {(task, _sorted(modality)): route for (task, modality), route in (route_mappings or {}).items()}
        for name, routes in (("default_route", [default_route]), ("route_mappings", mappings.values())):
            if unknown := [route for route in routes if route is not None and route not in sub_modules]:
                raise ValueError(f"{name} must be of the routes {list(sub_modules)}, got {unknown[0]!r}")
        self.sub_modules = nn.ModuleDict({route: nn.Sequential(*modules) for route, modules in sub_modules.items()})
        self.default_route = next(iter(sub_modules)) if default_route is None and allow_empty_key else default_route
        self.allow_empty_key = allow_empty_key
        self.route_mappings: dict[tuple[str | None, Any], str] = mappings

    @classmethod
    def for_query_document(
        cls,
        query_modules: Sequence[Module],
        document_modules: Sequence[Module],
        default_route: str | None = "document",
        allow_empty_key: bool = True,
    ) -> Self:
        """Build a Router with the routes ``query`` and ``document``, which `encode_query` and `encode_document` take.

        Args:
            query_modules: The modules of queries.
            document_modules: The modules of documents.
            default_route: The route of `encode`.
            allow_empty_key: Whether that is ``query`` where it is None.
        """
        routes = {"query": query_modules, "document": document_modules}
        return cls(routes, default_route, allow_empty_key)

    @property
    def routes(self) -> dict[str, list[Module]]:
        """The modules of each route."""
        return {name: [cast(Module, module) for module in cast(nn.Sequential, chain)] for name, chain in self._chains()}

    def _chains(self) -> Iterator[tuple[str, nn.Module]]:
        return iter(self.sub_modules.items())

    def route(self, task: str | None = None, modality: Any = None) -> str:
        """Return the name of the route for a task and a kind of input.

        Raises:
            ValueError: There is none.
        """
        modality = _sorted(modality)
        for key in ((task, modality), (task, None), (None, modality), (None, None)):
            if key in self.route_mappings:
                return self.route_mappings[key]
        for name in (task, modality):
            if name is not None and name in self.sub_modules:
                return cast(str, name)
        if task is None and self.default_route is not None:
            return self.default_route
        known = f"routes are {list(self.sub_modules)}"
        if self.route_mappings:
            known += f", and by (task, modality) {list(self.route_mappings)}"
        wanted = f"task {task!r}" + ("" if modality is None else f" and modality {modality!r}")
        hint = "" if task else "; pass task, or give the Router a default_route"
        raise ValueError(f"no route for {wanted}; {known}{hint}")

    def prepare(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        *,
        task: str | None = None,
        on_chunk: Callable[[], None] | None = None,
    ) -> Prepared:
        """Do what the first module of the inputs' route does; inputs of several kinds may take several routes.

        Args:
            inputs: N inputs, or N dicts of a route's name and an input, all with the same name: the old way to tell
                the task.
            prompt: Put before each text.
            task: What the inputs are for.
            on_chunk: Called now and then, as a sign of life.

        Raises:
            ValueError: There is no route for them.
        """
        if task is None and len(inputs) and isinstance(inputs[0], dict) and not inputs[0].keys() & set(KINDS):
            task, inputs = _unwrapped(inputs)

        def prepare(kind: str, inputs: Sequence[Any]) -> Prepared:
            first = self._input_module(self.route(task, kind), kind)
            prepared = first.prepare(inputs, prompt, task=task, on_chunk=on_chunk)
            return Labeled(prepared, {"task": task, "modality": kind})

        return by_kind(inputs, self.modalities, prepare)

    def _input_module(self, route: str, kind: str) -> InputModule:
        first = self.routes[route][0]
        if not isinstance(first, InputModule) or kind not in first.modalities:
            name = type(first).__name__
            raise ValueError(f"the first module of route {route!r} must take {kind}s, which {name} does not")
        return first

    def forward(self, features: Features, task: str | None = None, modality: Any = None, **kwargs: Any) -> Features:
        """Pass ``features`` through the modules of their route.

        Args:
            features: Those of one batch, whose inputs are all of one kind.
            task: What they are for; what `prepare` was given if None.
            modality: Their kind; what `prepare` found if None, else ``text``.
            kwargs: Further arguments; each goes to the modules that name it.

        Raises:
            ValueError: There is no route for them.
        """
        task = features.get("task") if task is None else task
        modality = features.get("modality", "text") if modality is None else modality
        kwargs |= {"task": task, "modality": modality}
        for module in self.routes[self.route(task, modality)]:
            wanted = kwargs.keys() if isinstance(module, Router) else kwargs.keys() & module.forward_kwargs
            features = module(features, **{name: kwargs[name] for name in wanted})
        return features

    @property
    def _first_modules(self) -> list[Module]:
        return [modules[0] for modules in self.routes.values()]

    @property
    def modalities(self) -> tuple[str, ...]:  # type: ignore[override]
        """Kinds of input that some route takes."""
        return tuple(sorted({kind for first in self._first_modules for kind in getattr(first, "modalities", ())}))

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the first route that has one."""
        found = (getattr(first, "tokenizer", None) for first in self._first_modules)
        return next((tokenizer for tokenizer in found if tokenizer is not None), None)

    @tokenizer.setter
    def tokenizer(self, _: Any) -> None:
        raise AttributeError(f"set the tokenizer of a route's first module; routes are {list(self.sub_modules)}")

    @property
    def max_seq_length(self) -> int | None:
        """The largest of the routes' limits in tokens; setting it sets that of every route."""
        limits = (getattr(first, "max_seq_length", None) for first in self._first_modules)
        return max((limit for limit in limits if limit is not None), default=None)

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        for first in self._first_modules:
            if isinstance(first, InputModule):
                first.max_seq_length = value

    @property
    def max_positions(self) -> int | None:
        """The most positions that an input takes on any route that has a limit."""
        limits = (first.max_positions for first in self._first_modules if isinstance(first, InputModule))
        return max((limit for limit in limits if limit is not None), default=None)

    def get_embedding_dimension(self) -> int | None:
        """Return D of the first route that tells it."""
        for modules in self.routes.values():
            for module in reversed(modules):
                if (dimension := module.get_embedding_dimension()) is not None:
                    return dimension
        return None

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the modules aside."""
        return {
            "default_route": self.default_route,
            "allow_empty_key": self.allow_empty_key,
            "route_mappings": {str(key): route for key, route in self.route_mappings.items()},
        }

    def save(self, folder: Path) -> None:
        """Write the config to ``folder``, and each module to a folder in it, shared ones once."""
        folder.mkdir(parents=True, exist_ok=True)
        names: dict[Module, str] = {}
        for route, modules in self.routes.items():
            for index, module in enumerate(modules):
                names.setdefault(module, f"{route}_{index}_{type(module).__name__}")
        for module, name in names.items():
            module.save(folder / name)
        content = {
            "types": {name: module.public_path for module, name in names.items()},
            "structure": {route: [names[module] for module in modules] for route, modules in self.routes.items()},
            "parameters": self.config(),
        }
        (folder / self.config_name).write_text(json.dumps(content, indent=4), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, options: LoadOptions) -> Self:
        """Build the Router and its modules from its folder in a checkpoint.

        Raises:
            FileNotFoundError: A file is missing.
            ValueError: A module is unknown or lies outside of the folder, or a config does not fit.
        """
        entry = read_router(folder)
        modules: dict[str, Module] = {}
        for names in entry.structure.values():
            chain: list[Module] = []
            for name in names:
                if name not in modules:
                    modules[name] = load_module(folder, entry.modules[name], options, chain)
                chain.append(modules[name])
        routes = {route: [modules[name] for name in names] for route, names in entry.structure.items()}
        arguments = {"default_route", "allow_empty_key", "route_mappings"}
        return cls(routes, **known_keys(entry.parameters, arguments, folder))


Asym = Router
"""The name of `Router` before 5.0."""


def _sorted(modality: Any) -> Any:
    return tuple(sorted(modality)) if isinstance(modality, (tuple, list)) else modality


def _unwrapped(inputs: Sequence[Any]) -> tuple[str, list[Any]]:
    names = {str(name) for row in inputs for name in (row if isinstance(row, dict) else [type(row).__name__])}
    if len(names) > 1:
        raise ValueError(f"inputs that are dicts must all have the same route as their key, got {sorted(names)}")
    [task] = names
    return task, [row[task] for row in inputs]
