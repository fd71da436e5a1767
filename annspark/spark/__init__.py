"""Plumbing: how users travel and where they are kept; no step of the line."""
