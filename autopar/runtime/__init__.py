"""Executes transformed programs: process groups, buckets, replicas, and the user's module in front.

What may live here: everything that runs, as the Plan says. What may not: decisions that are not in
the Plan, and graph rewriting.
"""
