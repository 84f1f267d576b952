"""Measurements: step time against the plain module and torch's DistributedDataParallel.

What may live here: workloads, the variants they are run in, the measuring of them and the tables.
What may not: anything that autopar itself needs.
"""
