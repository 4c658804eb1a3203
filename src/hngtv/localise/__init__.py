"""What turns a case into a region of interest."""
