"""Poll once for everything in a triggerer that waits on the same part of Procore or Workflowsoft."""
