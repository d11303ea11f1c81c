"""What it costs to wait, measured."""
