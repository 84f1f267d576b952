"""Other people's scripts: loading one without its training code, finding its model, running it.

What may live here: reading a script's syntax, executing the parts that are needed, and standing in
for what it expects (a GPU, torch's wrappers). What may not: compiling, which is the caller's.
"""
