"""Where mail goes, and whether it would be taken there."""
