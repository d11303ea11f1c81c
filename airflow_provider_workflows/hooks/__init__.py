"""Connections to the two products: one method per endpoint, named as in the vendor's reference."""
