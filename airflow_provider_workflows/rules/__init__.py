"""The meaning of the responses of Procore and Workflowsoft: pure functions, without I/O and Airflow."""
