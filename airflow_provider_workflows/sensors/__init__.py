"""Sensors that wait for people, background jobs and integration steps in Procore and Workflowsoft."""
