"""Apache Airflow provider for approval workflows in Procore and Workflowsoft."""

__version__ = "0.1.0"
