"""The tensors of a checkpoint, in the files of ``torch.distributed.checkpoint`` (DCP).

Only tensors go there: DCP pickles everything else. Its index, the file ``.metadata``, is a pickle as
well; it is read here with an unpickler that knows DCP's record types and nothing else.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from autopar import compat
from autopar.checkpoint.values import Tensors
from autopar.errors import AutoparError, CheckpointError

__all__ = ["Layout", "layout_of", "read_tensors", "write_tensors"]

Layout = dict[str, tuple[str, list[int]]]  # a tensor's name to its dtype and sizes


def layout_of(tensors: Mapping[str, torch.Tensor]) -> Layout:
    """Dtype and sizes of every tensor."""
    return {name: (str(tensor.dtype).removeprefix("torch."), list(tensor.shape)) for name, tensor in tensors.items()}


def write_tensors(folder: Path, tensors: Tensors) -> None:
    """Writes the tensors as the nested dict that their paths describe; the files are on the disk afterwards."""
    nested: dict[str, Any] = {}
    for path, tensor in tensors.items():
        place = nested
        for part in path[:-1]:
            place = place.setdefault(part, {})
        place[path[-1]] = tensor
    with _quiet():
        save(nested, storage_writer=FileSystemWriter(folder, sync_files=True), no_dist=True)


def read_tensors(folder: Path, layout: Layout) -> dict[str, torch.Tensor]:
    """New tensors on the CPU with the values in the files.

    Raises:
        CheckpointError: the files are damaged, or the index holds anything but DCP's records.
    """
    tensors = {name: torch.empty(sizes, dtype=getattr(torch, dtype)) for name, (dtype, sizes) in layout.items()}
    try:
        with (folder / ".metadata").open("rb") as file:
            index = _Unpickler(file).load()
        with _quiet():
            load(dict(tensors), storage_reader=_Reader(folder, index), no_dist=True)
    except AutoparError:
        raise
    except (Exception, CheckpointException) as error:  # DCP hands on whatever its parts raise
        causes = error.failures.values() if isinstance(error, CheckpointException) else [(error, None)]
        cause = next(iter(causes))[0]
        raise CheckpointError(
            f"The tensors in {folder} cannot be read: {type(cause).__name__}: {_line(cause)}.",
            mend="Load an older checkpoint by its own folder, such as path/step-00000010.",
        ) from error
    return tensors


@contextmanager
def _quiet() -> Iterator[None]:
    """Without DCP's word that it works in a single process, which is what it was told."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


class _Reader(FileSystemReader):
    """DCP's reader, but that it does not unpickle the index."""

    def __init__(self, folder: Path, index: Metadata) -> None:
        super().__init__(folder)
        self._index = index

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index, which has been read already."""
        return self._index


class _Unpickler(pickle.Unpickler):
    _records: ClassVar = compat.checkpoint_records(metadata, filesystem)

    def find_class(self, module: str, name: str) -> Any:
        found = self._records.get((module, name))
        if found is None and module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            found = getattr(torch, name)
        if found is None:
            raise CheckpointError(
                f"The checkpoint's index asks for {module}.{name}, which is no record of a checkpoint.",
                why="An index that somebody has tampered with could run any code.",
                mend="Load a checkpoint from a source that you trust.",
            )
        return found
