"""The command line: ``autopar transform | view | passes | doctor | run``.

What may live here: reading options and scripts, calling the compiler, and printing what it returned.
What may not: anything that a Python user could not do with the same calls. torch is imported inside
the commands' bodies, so that help and usage errors come at once.
"""
