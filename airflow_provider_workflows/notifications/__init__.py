"""Notifiers: word in the product that something happened in Airflow."""
