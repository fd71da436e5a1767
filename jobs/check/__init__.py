"""What the check_*.py scripts share: sets, single builds in processes of their own, independent answers."""
