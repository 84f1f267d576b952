"""Passes: small rewrites of the Program, their contract, registry, pipelines and verifier.

What may live here: functions from Program to Program. What may not: anything that talks to the
network, and anything that decides what the partitioner should decide. Passes that keep every
number the same live in ``preserving``; passes that change numerics live in ``changing``.
"""
