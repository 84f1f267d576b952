"""Reduces the buckets that the plan wants compressed, and knows what that took."""

from __future__ import annotations

from collections.abc import Sequence

from autopar.runtime.bucket_kinds import AnyBucket
from autopar.runtime.collectives import Collectives, Work
from autopar.runtime.compressors import Compressor, Wire, make_compressor

__all__ = ["CompressedBuckets"]


class CompressedBuckets:
    """A compressor for each compressed bucket. A rank alone sends nothing, so there it has none.

    Args:
        buckets: all of them.
        collectives: the backend.
    """

    def __init__(self, buckets: Sequence[AnyBucket], collectives: Collectives) -> None:
        self._wires: dict[int, Wire] = {}
        self._compressors: dict[int, Compressor] = {}
        for bucket in buckets if collectives.world_size > 1 else ():
            if bucket.spec.compression:
                wire = self._wires[bucket.spec.index] = Wire(collectives)
                shapes = [parameter.shape for parameter in bucket.parameters]
                self._compressors[bucket.spec.index] = make_compressor(bucket.spec.compression, shapes, wire)

    def __contains__(self, bucket: AnyBucket) -> bool:
        return bucket.spec.index in self._compressors

    def send(self, bucket: AnyBucket, label: str) -> Work:
        """Starts reducing a loaded bucket."""
        (flat,) = bucket.messages
        self._wires[bucket.spec.index].nbytes = 0
        return self._compressors[bucket.spec.index].start(flat, bucket.message_scale, label)

    def sent_nbytes(self, index: int) -> int | None:
        """Bytes that this rank handed to collectives for a bucket the last time; None where it is not compressed."""
        wire = self._wires.get(index)
        return None if wire is None else wire.nbytes
