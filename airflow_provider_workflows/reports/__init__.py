"""Reports from the tables that the history exports write; they need the extra ``report``."""
