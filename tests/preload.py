"""What the server imports and does once, so that no rank forked from it has to do it again."""

import torch
import torch._dynamo  # the first optimizer of a process imports it, which takes seconds
import torch.nn.parallel.distributed
import torch.utils.checkpoint
from torch import nn

from autopar.compilation import compile_program
from autopar.shm.compiling import kernels
from autopar.strategies import DDP

torch.set_num_threads(1)  # before any operation: a forked process has none of its parent's threads
kernels()  # compiled here where they are not yet, else loaded
# Loads the passes and fills the caches of torch.fx. Without the gate, so that no autograd runs here.
compile_program(nn.Linear(2, 2), (torch.zeros(1, 2),), {}, DDP(), gate=False)
