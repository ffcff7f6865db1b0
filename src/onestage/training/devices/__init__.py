"""What a run runs on: one machine or several processes, what they have, who started them."""
