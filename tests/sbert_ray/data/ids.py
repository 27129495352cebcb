"""Ids of every Arrow type that Parquet keeps, three each: two that differ, and a null."""

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

NAN = float("nan")
INVALID_UTF8 = pa.array([b"\xff", b"ok", None], pa.binary()).view(pa.string())


def extended(kind: pa.BaseExtensionType, values: list[Any]) -> pa.ExtensionArray:
    return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))


def times(kind: pa.DataType) -> pa.Array:
    """Return times of which Python's own know neither."""
    return pa.array([2**33 + 1, 2**33 + 2, None], pa.int64()).view(kind)


def _ids() -> dict[str, pa.Array]:
    uuids = extended(pa.uuid(), [bytes(16), bytes(range(16)), None])
    words = pa.array(["a", "b", None])
    plain = {
        str(kind): pa.array(values, kind)
        for values, kinds in (
            ([0, 1, None], [pa.int8(), pa.uint64()]),
            (["a", "b", None], [pa.string(), pa.large_string(), pa.string_view()]),
            ([b"\xff", b"b", None], [pa.binary(), pa.large_binary(), pa.binary(1), pa.binary_view()]),
            ([np.float16("nan"), np.float16(1.5), None], [pa.float16(), pa.float32(), pa.float64()]),
            ([Decimal("1.5"), Decimal("2.5"), None], [pa.decimal32(5, 2), pa.decimal128(20, 3), pa.decimal256(50, 3)]),
            ([1, 2, None], [pa.date32(), pa.time32("ms"), pa.timestamp("us", "Europe/Berlin")]),
        )
        for kind in kinds
    }
    return plain | {
        "bool": pa.array([True, False, None]),
        "timestamp[ns]": times(pa.timestamp("ns")),
        "time64[ns]": times(pa.time64("ns")),
        "duration[ns]": times(pa.duration("ns")),
        "date of the year 12921": pa.array([4_000_000, 1, None], pa.int32()).view(pa.date32()),
        "uuid": uuids,
        "json": extended(pa.json_(), ["{}", "1", None]),
        "json_view": extended(pa.json_(pa.string_view()), ["{}", "1", None]),
        "tensor": extended(pa.fixed_shape_tensor(pa.float32(), [2]), [[1, NAN], [1, 2], None]),
        "oid": pa.array([{"$oid": "a"}, {"$oid": "b"}, None]),
        "struct of views": pa.array([{"a": "a"}, {"a": "b"}, None], pa.struct([("a", pa.string_view())])),
        "struct of NaN": pa.array([{"a": NAN}, {"a": 1.0}, None]),
        "struct of uuids": pa.StructArray.from_arrays([uuids], ["uuid"]),
        "struct of words": pa.StructArray.from_arrays([words.dictionary_encode()], ["word"]),
        "list": pa.array([[1], [2, 3], None]),
        "large_list": pa.array([["a"], [], None], pa.large_list(pa.string())),
        "list of NaN": pa.array([[NAN, 1.0], [1.0, 1.0], None], pa.list_(pa.float64(), 2)),
        "list of times": pa.array([[2**33 + 1], [], None], pa.list_(pa.timestamp("ns"))),
        "map": pa.array([[("a", NAN)], [("b", 1.0)], None], pa.map_(pa.string_view(), pa.float64())),
        "dictionary": words.dictionary_encode(),
        "invalid UTF-8": INVALID_UTF8,
        "struct of invalid UTF-8": pa.StructArray.from_arrays([INVALID_UTF8], ["a"]),
    }


IDS = _ids()
