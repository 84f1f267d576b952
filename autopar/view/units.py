"""Bytes, FLOPs and shapes as short text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autopar.partitioner.rates import Rates

__all__ = [
    "bytes_text",
    "count_text",
    "flops_text",
    "rates_text",
    "seconds_text",
    "shape_text",
    "share_text",
    "shorten",
]


def bytes_text(count: int) -> str:
    """Bytes in binary units.

    >>> bytes_text(44), bytes_text(1536), bytes_text(25 * 1024 * 1024)
    ('44 B', '1.5 KiB', '25.0 MiB')
    """
    if count < 1024:
        return f"{count} B"
    value, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f} {unit}"


def flops_text(count: int) -> str:
    """Floating-point operations in decimal units.

    >>> flops_text(0), flops_text(640), flops_text(2_500_000)
    ('0', '640', '2.5 M')
    """
    if count < 1000:
        return str(count)
    value, unit = count / 1000, "k"
    for larger in ("M", "G", "T", "P"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"


def seconds_text(seconds: float) -> str:
    """A time in the unit that leaves the fewest digits.

    >>> seconds_text(0), seconds_text(0.00042), seconds_text(0.0421), seconds_text(2.5)
    ('0', '420 µs', '42.1 ms', '2.50 s')
    """
    if seconds <= 0:
        return "0"
    if seconds < 0.9995e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def shape_text(shape: Sequence[int] | None, dtype: str | None = None) -> str:
    """A tensor's sizes and dtype; a dash where the value is not one tensor.

    >>> shape_text((32, 10), "float32"), shape_text(()), shape_text(None)
    ('32x10 f32', 'scalar', '-')
    """
    if shape is None:
        return "-"
    sizes = "x".join(map(str, shape)) or "scalar"
    return f"{sizes} {_SHORT.get(dtype, dtype)}" if dtype else sizes


def count_text(count: int, noun: str) -> str:
    """A number and its noun, in the plural where that is due.

    >>> count_text(1, "bucket"), count_text(1200, "node")
    ('1 bucket', '1,200 nodes')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def share_text(share: float) -> str:
    """A share of a whole in percent, which is all of it only where nothing is missing.

    >>> share_text(1.0), share_text(0.9996), share_text(0.93), share_text(0.0001)
    ('100%', '99%', '93%', '0%')
    """
    return f"{math.floor(100 * share + 1e-9)}%"


def shorten(text: str, length: int) -> str:
    """The text with its middle left out where it is longer than ``length`` characters.

    >>> shorten("encoder.layers.0.linear1", 16)
    'encod….0.linear1'
    """
    if len(text) <= length:
        return text
    length = max(length, 2)
    head = (length - 1) // 3  # the end of a path says more than its beginning
    return f"{text[:head]}…{text[head + 1 - length :]}"


_SHORT = {
    "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16",
    "int64": "i64", "int32": "i32", "int16": "i16", "int8": "i8", "uint8": "u8", "bool": "bool",
    "complex64": "c64", "complex128": "c128",
}  # fmt: skip


def rates_text(rates: Rates) -> str:
    """The three speeds that matter most, and where they are from."""
    return (
        f"{flops_text(round(rates.flops))}FLOP/s, memory {bytes_text(round(rates.memory))}/s, "
        f"network {bytes_text(round(rates.link))}/s ({rates.origin})"
    )
