"""The HTTP client: independent of Airflow, and of what the responses of each API mean."""
