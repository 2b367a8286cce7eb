"""Studies: a store, its labels, models and the evaluation put together, above all other
rooms and below the command line.
"""
