"""A classification as one HTML file that needs nothing else."""
