"""The output: the layout of the neighbor table, and how the table is published."""
