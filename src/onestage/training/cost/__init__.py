"""What a run will take of time, memory and disk, from steps tried here."""
