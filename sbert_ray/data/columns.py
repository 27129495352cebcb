"""Which columns a job needs, and whether every file of a dataset has them."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from sbert_ray.data.errors import InputError
from sbert_ray.data.kinds import check_copied, read_as


class Columns:
    """The columns that a job needs, and their types over the files that were seen.

    Args:
        text: must be there, with strings.
        copied: must be there, with the same type in every file, or without one where all values are null.
        optional: the same, but for JSON lines, of which only the first file must have them.
    """

    def __init__(self, text: Sequence[str], copied: Sequence[str], optional: Sequence[str] = ()) -> None:
        self.text = text
        self.copied = [*copied, *optional]
        self.needed = list(dict.fromkeys([*text, *copied]))
        """Those that every file must have."""
        self._types: dict[str, pa.DataType] = {}
        self._seen_in: dict[str, str] = {}

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types, strings where all values are null."""
        return pa.schema([(name, self._types.get(name, pa.string())) for name in self.names])

    @property
    def names(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.text, *self.copied]))

    def look_for_needed(self, where: str, found: Collection[str]) -> None:
        """Make sure that what every file must have is among the columns of one.

        Raises:
            InputError: if a column is missing.
        """
        _look_for(self.needed, where, found)

    def add(self, where: str, schema: pa.Schema) -> None:
        """Look at the schema of a further file.

        Raises:
            InputError: if a column is missing or of a wrong type.
        """
        _look_for(self.names, where, schema.names)
        for name in self.names:
            if schema.names.count(name) > 1:
                raise InputError(f"{where} has several columns called {name!r}")
            field = schema.field(name)
            self._check(where, field)
            if not pa.types.is_null(field.type) and name not in self._types:
                self._types[name], self._seen_in[name] = read_as(field.type), f"{field.type} in {where}"

    def _check(self, where: str, field: pa.Field) -> None:
        name, kind = field.name, field.type
        mixed = (field.metadata or {}).get(b"mixed", b"").decode()
        if mixed and (name in self.copied or not _is_text(kind)):
            raise InputError(f"{where}: column {name!r} holds values of several types: {mixed}")
        if pa.types.is_null(kind):
            return
        if name in self.text and not _is_text(kind):
            raise InputError(f"{where}: column {name!r} is {kind}; a text column must hold strings")
        if name in self.copied:
            self._check_copied(where, field)

    def _check_copied(self, where: str, field: pa.Field) -> None:
        name, kind = field.name, read_as(field.type)
        if name in self._types:
            if kind != self._types[name]:
                raise InputError(
                    f"{where}: column {name!r} is {field.type}, but {self._seen_in[name]}; a column that is copied"
                    " must have one type"
                )
            return  # it was looked into when it was first seen
        try:
            check_copied(field.with_type(kind))
        except TypeError as error:
            message = f"{where}: column {name!r} is {field.type}, which cannot be copied to the output: {error}"
            raise InputError(message) from error


def _look_for(names: Sequence[str], where: str, found: Collection[str]) -> None:
    if missing := [name for name in names if name not in found]:
        raise InputError(f"{where} lacks column(s) {missing}; it has {list(found)}")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
