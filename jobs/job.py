"""What every job is: a validated config that can run itself, from a YAML file and flags."""

import argparse
import logging
import signal
import sys
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from ray.exceptions import RayError

from actors.errors import PERMANENT, PoolError, UnitFailedError, is_passing
from sbert_ray.data.errors import BusyError, Error, InputError, LeaseLostError
from sbert_ray.data.storage import redacted

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_FATAL = 2
"""Bad input or options: mend them first."""
EXIT_RETRYABLE = 75
"""A passing failure (EX_TEMPFAIL): the same command again goes on where this one ended."""


def as_tuple(value: object) -> object:
    """Take a single value for a list of one."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]
"""Several names, as a list or, if it is one, as it is."""


class StoppedError(Error, RuntimeError):
    """The job was asked to stop by a signal."""


RETRYABLE = (BusyError, LeaseLostError, StoppedError, PoolError, ConnectionError)
"""Failures that pass, and say all by themselves."""


def may_pass(error: BaseException) -> bool:
    """Whether the same command may go on from where it failed; its exit code says so."""
    return isinstance(error, (*RETRYABLE, RayError)) or is_passing(error)


class Job(BaseModel, ABC):
    """A job's fields are its whole configuration: there is no other way to change what it does.

    Values come from a YAML file (``--config``), then from flags, one per field, which win. A wrong value, an unknown
    name or a missing field stops the job before anything starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    command: ClassVar[str]
    """Name of the job's sub-command."""

    @abstractmethod
    def run(self) -> int:
        """Do the work and return the exit code."""

    @classmethod
    def parser(cls) -> argparse.ArgumentParser:
        """Return the parser of the job's flags, one per field."""
        parser = argparse.ArgumentParser(
            prog=f"sbert-ray {cls.command}",
            description=cls.__doc__,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,  # what is short for one option today may be short for two tomorrow
        )
        parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with any of the fields below")
        for name, field in cls.model_fields.items():
            default = "required" if field.is_required() else f"default: {_shown(field.default)}"
            options = {"help": f"{field.description} ({default})".replace("%", "%%"), **_flag(field)}
            parser.add_argument(*_names(name, field), dest=name, **options)
        return parser

    @classmethod
    def from_argv(cls, argv: Sequence[str] | None = None) -> Self:
        """Build the job from a config file and flags.

        Raises:
            InputError: that says for each wrong field what is wrong with it.
        """
        flags = vars(cls.parser().parse_args(argv))
        config = flags.pop("config", None)
        values = _read_config(config) if config else {}
        try:
            return cls.model_validate(values | flags)
        except ValidationError as error:
            problems = [f"  {_path(item['loc'])}: {cls._problem(item)}" for item in error.errors()]
            where = f" in {config} or the flags" if config else ""
            raise InputError("\n".join([f"{len(problems)} wrong option(s){where}:", *problems])) from error

    @classmethod
    def _problem(cls, item: Mapping[str, Any]) -> str:
        if item["type"] != "extra_forbidden":
            return str(item["msg"]).removeprefix("Value error, ")
        similar = get_close_matches(str(item["loc"][0]), cls.model_fields, n=1)
        known = similar or sorted(cls.model_fields)
        return f"no such option; {'did you mean' if similar else 'known options are'} {', '.join(map(_option, known))}"

    @classmethod
    def main(cls, argv: Sequence[str] | None = None) -> NoReturn:
        """Run the job from the command line and exit with its code."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGINT, _stop)
        try:
            sys.exit(cls.from_argv(argv).run())
        except InputError as error:
            _fail(error, EXIT_FATAL)
        except UnitFailedError as error:
            if not isinstance(getattr(error.__cause__, "cause", None), InputError):  # that says it all by itself
                sys.stderr.write(redacted(f"in the worker: {error.__cause__}\n"))
            _fail(error, EXIT_FATAL)
        except RETRYABLE as error:
            _fail(error, EXIT_RETRYABLE)
        except PERMANENT as error:
            _fail(f"{error}; mend that, and the same command goes on from here", EXIT_FATAL)
        except RayError as error:
            _fail(f"Ray failed: {error or repr(error)}; the same command goes on from here", EXIT_RETRYABLE)
        except OSError as error:
            _fail(f"{error or repr(error)}; the same command goes on from here", EXIT_RETRYABLE)


def _fail(error: BaseException | str, code: int) -> NoReturn:
    sys.stderr.write(redacted(f"error: {error}\n"))
    sys.exit(code)


def _stop(number: int, _frame: types.FrameType | None) -> NoReturn:
    raise StoppedError(f"stopped by {signal.Signals(number).name}; the same command goes on from here")


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read the config file {path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"the config file {path} must hold names and values, got {type(values).__name__}")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _names(name: str, field: FieldInfo) -> list[str]:
    """Return the flag, and its plural for a field that takes several values."""
    flag = _option(name)
    return [flag, f"{flag}s"] if _takes_several(field) and not flag.endswith("s") else [flag]


def _flag(field: FieldInfo) -> dict[str, Any]:
    if field.annotation is bool:
        return {"action": argparse.BooleanOptionalAction}
    if _takes_several(field):
        return {"action": "extend", "nargs": "+", "metavar": "VALUE"}
    choices = [
        choice for kind in _kinds(field) if typing.get_origin(kind) is typing.Literal for choice in kind.__args__
    ]
    return {"choices": choices} if choices else {"metavar": "VALUE"}


def _takes_several(field: FieldInfo) -> bool:
    return any(typing.get_origin(kind) is tuple for kind in _kinds(field))


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    annotation = field.annotation
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)


def _shown(default: object) -> object:
    return " ".join(map(str, default)) or "none" if isinstance(default, tuple) else default


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _path(location: tuple[int | str, ...]) -> str:
    name = _option(str(location[0])) if location else "options"
    return name + "".join(f"[{part}]" for part in location[1:])
