"""What was done and what came of it; never torch."""
