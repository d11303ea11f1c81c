"""Assets that schedule DAGs when something happens in Procore or Workflowsoft."""
