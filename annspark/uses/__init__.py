"""What a neighbor table is for: a table in, a table out."""
