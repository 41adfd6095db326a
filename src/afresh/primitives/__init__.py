"""Small parts that everything else stands on: time, delays, results, kinds of errors, background
tasks.

Nothing here knows of graphs, networks or databases.
"""
