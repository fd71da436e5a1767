"""What comes in: tables and columns of many kinds, and the check of every row."""
