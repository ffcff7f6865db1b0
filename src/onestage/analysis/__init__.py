"""Why the numbers are what they are, and which of two is better; reads files, never a model."""
