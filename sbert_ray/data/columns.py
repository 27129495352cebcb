"""Which columns a job needs, and whether every file of a dataset has them."""

from collections.abc import Sequence

import pyarrow as pa

from sbert_ray.data.errors import InputError


class Columns:
    """The columns that a job needs, and their types over the files that were seen.

    Args:
        text: must be there, with strings.
        copied: must be there, with the same type in every file, or without one where all values are null.
    """

    def __init__(self, text: Sequence[str], copied: Sequence[str]) -> None:
        self.text = text
        self.copied = copied
        self._types: dict[str, pa.DataType] = {}
        self._seen_in: dict[str, str] = {}

    @property
    def schema(self) -> pa.Schema:
        """The columns and their types, strings where all values are null."""
        return pa.schema([(name, self._types.get(name, pa.string())) for name in self._names])

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys([*self.text, *self.copied]))

    def add(self, where: str, schema: pa.Schema) -> None:
        """Look at the schema of a further file.

        Raises:
            InputError: if a column is missing or of a wrong type.
        """
        if missing := [name for name in self._names if name not in schema.names]:
            raise InputError(f"{where} lacks column(s) {missing}; it has {schema.names}")
        for name in self._names:
            if schema.names.count(name) > 1:
                raise InputError(f"{where} has several columns called {name!r}")
            field = schema.field(name)
            self._check(where, field)
            if not pa.types.is_null(field.type) and name not in self._types:
                self._types[name], self._seen_in[name] = field.type, where

    def _check(self, where: str, field: pa.Field) -> None:
        name, kind = field.name, field.type
        mixed = (field.metadata or {}).get(b"mixed", b"").decode()
        if mixed and (name in self.copied or not _is_text(kind)):
            raise InputError(f"{where}: column {name!r} holds values of several types: {mixed}")
        if pa.types.is_null(kind):
            return
        if name in self.text and not _is_text(kind):
            raise InputError(f"{where}: column {name!r} is {kind}; a text column must hold strings")
        first = self._types.get(name, kind)
        if name in self.copied and kind != first:
            raise InputError(
                f"{where}: column {name!r} is {kind}, but {first} in {self._seen_in[name]}; a column that is copied"
                " must have one type"
            )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(is_kind(kind) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
