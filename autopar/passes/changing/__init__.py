"""Passes that change numerics on purpose (compression, mixed precision), each with a stated bound."""
