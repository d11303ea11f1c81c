"""The checks of ``airflow-workflows doctor``, which find out why a connection does not work."""
