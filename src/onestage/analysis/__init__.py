"""Why the numbers are what they are; reads files, never a model."""
