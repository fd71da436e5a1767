"""Plumbing that the steps share: how users are shipped between them, and where tables are stored."""
