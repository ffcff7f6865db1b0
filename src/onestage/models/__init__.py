"""From pixels to boxes; knows no file format and no metric."""
