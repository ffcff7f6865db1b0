"""From folders to batches; knows no network."""
