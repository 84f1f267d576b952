"""Models to measure: four small ones that each stress something else, and three of other libraries.

What may live here: workloads and the command that measures them all. How to measure is ``autopar.benchmarking``'s.
"""
