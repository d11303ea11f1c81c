"""Links from a task in Airflow's UI to its item in Procore or Workflowsoft."""
