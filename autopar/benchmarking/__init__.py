"""Measures training steps: the plain module, torch's wrappers and autopar, taking turns in one run.

What may live here: the columns that a model is measured in, the measuring, and what is made of it (table,
JSON, chart). What may not: models of its own, which ``benchmarks/`` and users bring.
"""
