"""Assets that schedule DAGs when something happens in one of the products."""
