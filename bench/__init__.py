"""What lists, writes and handlers cost: `python -m bench`."""
