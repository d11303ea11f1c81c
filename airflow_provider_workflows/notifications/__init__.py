"""Notifiers that create something in Procore or Workflowsoft when something happens in Airflow."""
