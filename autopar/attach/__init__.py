"""The user's module with a program in front: one object that stays the user's.

What may live here: putting programs in front of modules, and choosing one for each call. What may
not: executing them (the strategy's executor does), and deciding anything about parallelism.
"""

from autopar.attach.attachment import Attachment
from autopar.attach.module import attach, attachment_of, detach, install

__all__ = ["Attachment", "attach", "attachment_of", "detach", "install"]
