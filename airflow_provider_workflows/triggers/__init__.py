"""
Waiting without a worker.

Every DAG file imports the wait triggers with its operators and sensors, so these import ``polling`` in the methods
that only a triggerer calls.
"""
