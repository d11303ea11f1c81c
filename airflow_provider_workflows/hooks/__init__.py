"""Hooks for Procore and Workflowsoft: one method per endpoint, named as in the vendor's reference."""
