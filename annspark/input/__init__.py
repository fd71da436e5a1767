"""The input: find the columns of ids and vectors in tables of many kinds, and check every row."""
