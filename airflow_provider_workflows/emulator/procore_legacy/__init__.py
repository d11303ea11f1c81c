"""Procore Legacy Workflows v1: its routes, the state machine behind them, and what its responses look like."""
