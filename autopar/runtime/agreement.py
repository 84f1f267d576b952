"""Before the first step: do all ranks hold the same thing, and rank 0's values everywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from autopar.errors import RankMismatchError
from autopar.runtime.collectives import reporting
from autopar.runtime.group import Group

__all__ = ["check_equal", "copy_from_rank", "describe", "exchange", "message_device", "text_from_rank"]

_CHUNK_BYTES = 250 * 1024 * 1024


def describe(model: nn.Module, options: Mapping[str, Any], ignore: Collection[str] = ()) -> dict[str, str]:
    """What must be equal on all ranks but the names to ``ignore``, item by item and in order, as text."""
    items = {f"option {name!r}": repr(value) for name, value in options.items()}
    for number, (name, p) in enumerate(model.named_parameters()):
        if name in ignore:
            continue
        items[f"parameter {number}"] = f"{name!r} {_layout(p)}, {'trainable' if p.requires_grad else 'frozen'}"
    for number, (name, buffer) in enumerate(model.named_buffers()):
        if name in ignore:
            continue
        items[f"buffer {number}"] = f"{name!r} {_layout(buffer)}"
    return items


def check_equal(group: Group, items: Mapping[str, str], *, what: str) -> None:
    """Compares a description on all ranks; one 32-byte message when they agree.

    Args:
        group: the ranks.
        items: what must be equal, item by item.
        what: what is compared, for the message, such as ``"model"``.

    Raises:
        RankMismatchError: with the same message on every rank: the ranks, the first item that
            differs, and both values.
    """
    if group.handle is None:
        return
    digest = hashlib.sha256(json.dumps(items).encode()).hexdigest()
    digests = exchange(group, digest)
    odd = next((rank for rank, other in enumerate(digests) if other != digests[0]), None)
    if odd is None:
        return
    all_items: list[dict[str, str]] = exchange(group, dict(items))
    first, second = all_items[0], all_items[odd]
    for key in dict.fromkeys([*first, *second]):
        one, other = first.get(key, "nothing"), second.get(key, "nothing")
        if one != other:
            raise RankMismatchError(
                f"The ranks do not hold the same {what}: {key} is {one} on rank 0 and {other} on rank {odd}.",
                why="Their gradients would be added up wrongly.",
                mend="Build the same model with the same options on every rank.",
            )
    raise AssertionError("digests differ but items do not")


def exchange(group: Group, value: Any) -> list[Any]:
    """Every rank's value, in rank order; values are JSON, never pickles."""
    assert group.handle is not None
    device = message_device(group)
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(group.world_size)]
    with reporting(group, "the comparison of the ranks"):
        dist.all_gather(sizes, torch.tensor([data.numel()], device=device), group=group.handle)
        longest = int(max(size.item() for size in sizes))
        padded = torch.zeros(longest, dtype=torch.uint8, device=device)
        padded[: data.numel()] = data.to(device)
        parts = [torch.empty_like(padded) for _ in range(group.world_size)]
        dist.all_gather(parts, padded, group=group.handle)
    return [
        json.loads(bytes(part[: int(size.item())].cpu().numpy()).decode())
        for part, size in zip(parts, sizes, strict=True)
    ]


def text_from_rank(group: Group, text: str, *, rank: int) -> str:
    """One rank's text, on all of them."""
    assert group.handle is not None
    source, device = dist.get_global_rank(group.handle, rank), message_device(group)
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).to(device)
    size = torch.tensor([data.numel()], device=device)
    with reporting(group, "the comparison of the ranks"):
        dist.broadcast(size, source, group=group.handle)
        if group.rank != rank:
            data = torch.empty(int(size.item()), dtype=torch.uint8, device=device)
        dist.broadcast(data, source, group=group.handle)
    return bytes(data.cpu().numpy()).decode()


def copy_from_rank(group: Group, tensors: Sequence[torch.Tensor], *, rank: int = 0) -> None:
    """Overwrites the tensors with rank 0's, or another rank's, in flat messages of at most 250 MiB."""
    if group.handle is None:
        return
    source = dist.get_global_rank(group.handle, rank)
    kinds: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor.detach())
    for members in kinds.values():
        for chunk in _chunks(members):
            flat = torch.cat([tensor.reshape(-1) for tensor in chunk])
            if flat.numel() == 0:
                continue
            # as bytes, since backends do not know every dtype (gloo has no complex, no unsigned)
            with reporting(group, f"copying {len(chunk)} tensors from rank {rank}"):
                dist.broadcast(flat.view(torch.uint8), source, group=group.handle)
            parts = flat.split([tensor.numel() for tensor in chunk])
            for tensor, part in zip(chunk, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))


def message_device(group: Group) -> torch.device:
    """Where tensors of small control messages must live for the group's backend."""
    backend = str(dist.get_backend(group.handle))
    if "nccl" in backend and "gloo" not in backend:
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _chunks(tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    chunks: list[list[torch.Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if chunks[-1] and filled + size > _CHUNK_BYTES:
            chunks.append([])
            filled = 0
        chunks[-1].append(tensor)
        filled += size
    return chunks


def _layout(tensor: torch.Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{dtype}{list(tensor.shape)} strides {list(tensor.stride())} on {tensor.device.type}"
