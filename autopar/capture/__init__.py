"""Turns a model into a Program: the finest form that is exact, with a remark for every step down.

What may live here: tracing, the ladder of front ends, and the gate that compares a captured program
with the eager model. What may not: parallelism of any kind, and changes to the user's model.
"""
