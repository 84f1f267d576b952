"""Draws and prints what the compiler made: ``graph.json``, and every picture that is made from it.

What may live here: functions from a Compilation to the graph document, and from that document to
text (tables, DOT, SVG). What may not: torch (only ``graph_json`` touches a Program, and only while it
makes the document), decisions, and anything that writes files: a picture can be made later and
elsewhere from ``graph.json`` alone.
"""
