"""What an answer of the two products means: pure functions, no I/O and no Airflow."""
