"""The checks of ``airflow-workflows doctor``."""
