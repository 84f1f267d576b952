"""Decides what travels when: gradient-ready order, buckets, and the Plan they end in.

What may live here: functions of sizes, orders and networkx DAGs, and pure data. What may not:
torch, ``torch.distributed``, modules, tensors, or anything that runs.
"""
