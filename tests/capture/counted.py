"""A module that others count in."""

steps = 0
