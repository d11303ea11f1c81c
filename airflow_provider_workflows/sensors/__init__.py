"""Waiting for people to decide."""
