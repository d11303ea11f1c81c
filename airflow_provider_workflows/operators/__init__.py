"""Acting on workflows, once."""
