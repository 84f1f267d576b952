"""What stands in shared memory, field by field: the structs of ``kernels.c`` for Python."""

from __future__ import annotations

import ctypes
from enum import IntEnum

import torch

__all__ = [
    "ELEMENT_TYPES",
    "LAYOUT_FACTS",
    "MAX_RANKS",
    "MAX_SEGMENTS",
    "MOVED_TYPES",
    "OPERATORS",
    "RING",
    "Control",
    "Descriptor",
    "Kind",
    "Operator",
    "Status",
]

MAX_RANKS = 64
MAX_SEGMENTS = 512
RING = 64


class Kind(IntEnum):
    """What is done."""

    BARRIER = 0
    ALL_REDUCE = 1
    BROADCAST = 2
    ALL_GATHER = 3
    REDUCE_SCATTER = 4


class Operator(IntEnum):
    """How terms are combined."""

    SUM = 0
    AVG = 1
    MIN = 2
    MAX = 3
    PRODUCT = 4


class Status(IntEnum):
    """How a call of the transport ended."""

    DONE = 0
    PENDING = 1  # another rank has to post or to finish first
    MISMATCH = 2  # the ranks have posted different operations
    UNMAPPED = 3  # a peer's segment is not mapped here yet
    LEFT = 4  # a rank that is needed takes part no more


OPERATORS = {operator.name.lower(): operator for operator in Operator}
# The dtypes that can be reduced, with their numbers in kernels.c.
ELEMENT_TYPES: dict[torch.dtype, int] = {
    torch.float32: 1,
    torch.float64: 2,
    torch.bfloat16: 3,
    torch.float16: 4,
    torch.int8: 5,
    torch.int16: 6,
    torch.int32: 7,
    torch.int64: 8,
    torch.uint8: 9,
}

# The others can only be moved; they have numbers so that ranks notice when theirs differ.
MOVED_TYPES: dict[torch.dtype, int] = {
    dtype: 100 + number
    for number, dtype in enumerate(
        sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype)} - {*ELEMENT_TYPES}, key=str)
    )
}


class Descriptor(ctypes.Structure):
    """What one rank brings to one operation; all but ``segment`` and ``offset`` is equal on all ranks."""

    _fields_ = [
        ("count", ctypes.c_uint64),
        ("scale", ctypes.c_double),
        ("kind", ctypes.c_int32),
        ("operator", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
        ("element_size", ctypes.c_int32),
        ("root", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("label", ctypes.c_char * 144),
        ("segment", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
    ]


class Control(ctypes.Structure):
    """A rank's control block: it alone writes it, all ranks read it."""

    _fields_ = [
        ("posted", ctypes.c_uint64),
        ("heartbeat", ctypes.c_double),  # when it posted, by the host's monotonic clock; padding to kernels.c
        ("_pad_posted", ctypes.c_char * 48),
        ("finished", ctypes.c_uint64),
        ("_pad_finished", ctypes.c_char * 56),
        ("left", ctypes.c_uint64),
        ("identity", ctypes.c_char * 64),
        ("farewell", ctypes.c_char * 512),
        ("segment_fds", ctypes.c_int64 * MAX_SEGMENTS),
        ("_pad_ring", ctypes.c_char * 56),
        ("ring", Descriptor * RING),
    ]


LAYOUT_FACTS = [
    ctypes.sizeof(Descriptor),
    Descriptor.label.offset,
    Descriptor.segment.offset,
    ctypes.sizeof(Control),
    Control.finished.offset,
    Control.left.offset,
    Control.segment_fds.offset,
    Control.ring.offset,
]
