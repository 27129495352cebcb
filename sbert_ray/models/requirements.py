"""Versions of packages that the author of a checkpoint asks for. Knows no torch."""

import logging
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet

PEER_VERSION = "6.2.0"
"""The version of sentence-transformers whose format we write; readers compare it with their own."""

logger = logging.getLogger(__name__)

_DISTRIBUTIONS = {"pytorch": "torch"}


def check_requirements(requirements: Any, source: str) -> None:
    """Make sure that the packages here are those that a checkpoint needs.

    Args:
        requirements: The ``requirements`` of its settings: by package a PEP 440 specifier, or an object of one and the
            ``reason`` for it. What cannot be read as that is warned of and passed over.
        source: The file, for messages.

    Raises:
        ImportError: A package is missing or has another version.
    """
    if not isinstance(requirements, Mapping):
        logger.warning("the requirements in %s must be an object of version specifiers, got %r", source, requirements)
        return
    unmet = [text for name, wanted in requirements.items() if (text := _unmet(name, wanted, source))]
    if unmet:
        raise ImportError(f"{source} requires {'; '.join(unmet)}; install that first")


def _unmet(name: str, wanted: Any, source: str) -> str | None:
    specifier, reason = (wanted.get("specifier"), wanted.get("reason")) if isinstance(wanted, Mapping) else (wanted, "")
    try:
        if not isinstance(specifier, str):
            raise InvalidSpecifier(repr(specifier))
        allowed = SpecifierSet(specifier)
    except InvalidSpecifier:
        logger.warning("ignoring the requirement %r of %s in %s: it is no version specifier", wanted, name, source)
        return None
    found = _installed(name)
    if found is not None and allowed.contains(found, prereleases=True):
        return None
    return f"{name}{specifier} ({found or 'not installed'} here{f': {reason}' if reason else ''})"


def _installed(name: str) -> str | None:
    known = {"python": platform.python_version(), "sentence_transformers": PEER_VERSION}
    known["sentence-transformers"] = PEER_VERSION  # whose format and results ours are
    try:
        return known.get(name) or version(_DISTRIBUTIONS.get(name, name))
    except PackageNotFoundError:
        return None
