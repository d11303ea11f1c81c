"""Files that tasks and reports read and write in any object storage."""
