"""What may be behind a rise: the statistics that one finding each asks for."""
