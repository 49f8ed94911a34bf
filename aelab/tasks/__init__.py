"""Tasks: the trainer plugins, one file each."""
