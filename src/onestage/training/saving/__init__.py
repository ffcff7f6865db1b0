"""What makes a run that was ended go on: its states, when they are saved, what may change."""
