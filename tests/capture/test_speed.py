"""Capture of a large model is quick, and the first one loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
import time

import torch
from torch import nn

import autopar

HEAVY = ("sympy", "torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "torch._decomp.decompositions")
FIRST = """
import sys, torch, autopar
from torch import nn
model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Conv1d(1, 1, 1))
before = set(sys.modules)
autopar.trace(model, torch.ones(1, 4))
print([name for name in {heavy!r} if name in sys.modules and name not in before])
"""


def test_first_capture_imports_nothing_heavy() -> None:
    """Those imports took two seconds; neither gradients nor FLOPs need them."""
    script = FIRST.format(heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_thousand_operations() -> None:
    """Under a second on a machine that computes 10 million additions in half a second."""
    started = time.process_time()
    total = 0
    for number in range(2_000_000):
        total += number
    unit = (time.process_time() - started) * 5 / 0.5
    layers = [nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(500)]
    model, batch = nn.Sequential(*layers), torch.ones(2, 8)
    autopar.trace(model[:1], batch)
    started = time.process_time()
    program = autopar.trace(model, batch)
    assert len(list(program.find("call_function"))) == 1_000
    assert time.process_time() - started < 1.0 * max(unit, 1.0)
