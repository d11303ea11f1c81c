"""The contract check: which side of each open question a tenant takes, found by reading only."""
