"""Passes after which the program computes bit for bit what it computed before."""
