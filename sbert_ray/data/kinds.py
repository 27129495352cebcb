"""Arrow types of columns: which are read as others, which cannot be copied, and how values of any type are compared."""

import hashlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BYTES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_binary_view,
)
"""Types whose values are bytes of any length, but for that which stands for them all."""


def read_as(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column is read as: views of bytes, which Arrow cannot filter, become large strings."""
    return _changed(kind, _without_view)


def check_copied(field: pa.Field) -> None:
    """Make sure that a column of a type can be copied to the output.

    Raises:
        TypeError: that says why not.
    """
    _changed(field.type, _not_a_list_view)
    try:
        pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
    except pa.ArrowNotImplementedError as error:
        raise TypeError(f"Parquet has no such type: {error}") from error


def comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return values of any type so that equal ones are equal to Arrow, and Python can hold each.

    What extensions and dictionaries stand for takes their place. Text becomes bytes, since it need not be valid UTF-8,
    floats become text, since NaN equals nothing, and times the numbers that they are stored as, since those of Python
    know no nanoseconds and end with the year 9999.
    """
    return column.cast(_changed(column.type, _plain))


def are_comparable(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether equal values of two types are equal to `comparable` and `hashes`, as those of integers are."""
    if one == other or (pa.types.is_integer(one) and pa.types.is_integer(other)):
        return True
    return all(any(is_kind(kind) for is_kind in (*BYTES, pa.types.is_large_binary)) for kind in (one, other))


def hashes(column: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Return a hash of each value, equal for equal values."""
    values = comparable(column).to_pylist()
    digests = (hashlib.blake2b(repr(value).encode(), digest_size=8).digest() for value in values)
    return np.frombuffer(b"".join(digests), dtype=np.uint64)


def num_repeated(column: pa.ChunkedArray) -> int:
    """Return how many values are equal to one before them."""
    values = comparable(column)
    try:
        return len(values) - len(values.unique())
    except pa.ArrowNotImplementedError:  # of structs and lists
        return len(column) - len(np.unique(hashes(column)))


def _changed(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with ``change`` made to the types within it that are no struct, map or list."""

    def changed(field: pa.Field) -> pa.Field:
        return field.with_type(_changed(field.type, change))

    if isinstance(kind, pa.StructType):
        return pa.struct([changed(kind.field(index)) for index in range(kind.num_fields)])
    if isinstance(kind, pa.MapType):
        return pa.map_(changed(kind.key_field), changed(kind.item_field), kind.keys_sorted)
    if isinstance(kind, pa.FixedSizeListType):
        return pa.list_(changed(kind.value_field), kind.list_size)
    if isinstance(kind, pa.LargeListType):
        return pa.large_list(changed(kind.value_field))
    if isinstance(kind, pa.ListType):
        return pa.list_(changed(kind.value_field))
    return change(kind)


def _without_view(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        storage = read_as(kind.storage_type)
        return kind if storage == kind.storage_type else storage
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _not_a_list_view(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.BaseExtensionType):
        return _changed(kind.storage_type, _not_a_list_view)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        raise TypeError("Arrow converts parts of a list_view into other lists; write it as a list")
    return kind


def _plain(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _changed(kind.storage_type, _plain)
    if types.is_dictionary(kind):
        return _changed(kind.value_type, _plain)
    if types.is_floating(kind):
        return pa.string()
    if types.is_temporal(kind):
        return pa.int64() if kind.bit_width == 64 else pa.int32()
    return pa.large_binary() if any(is_kind(kind) for is_kind in BYTES) else kind
