"""HTTP and nothing else: nothing in here knows Airflow or what an answer means."""
