"""What the server of the parallel side does once, so that no process forked from it has to do it again."""

import torch

import autopar.verification.rank  # noqa: F401
from autopar.shm.compiling import kernels

torch.set_num_threads(1)  # before any operation: a forked process has none of its parent's threads
kernels()  # compiled here where they are not yet, else loaded
torch.optim.SGD([torch.zeros(1)], lr=0.1)  # the first optimizer of a process imports for seconds (torch 2.13: 2.5)
