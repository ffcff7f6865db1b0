"""Models at work: predictions on images and folders."""
