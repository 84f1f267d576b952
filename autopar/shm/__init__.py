"""Collectives through shared memory, for ranks on one host.

What may live here: the memory, the protocol, the reductions, and torch.distributed's view of them.
What may not: anything about models, gradients or plans.
"""

from autopar.shm.communicator import Communicator, Work
from autopar.shm.process_group import NAME, register
from autopar.shm.rendezvous import Exchange, connect

__all__ = ["NAME", "Communicator", "Exchange", "Work", "connect"]

register()
