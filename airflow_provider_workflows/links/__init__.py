"""Links from a task in Airflow's UI to the item in the product's UI."""
