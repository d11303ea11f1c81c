"""
Triggers: waits without a worker, and watchers of assets.

Every DAG file imports the wait triggers with its operators and sensors. To keep that cheap, the wait triggers import
``polling`` only in methods that a triggerer calls.
"""
