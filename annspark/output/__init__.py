"""What goes out: how the neighbor table is laid out, and how it takes its place."""
