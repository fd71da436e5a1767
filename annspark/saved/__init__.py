"""The saved index: its manifest and its parts, written and read without Spark."""
