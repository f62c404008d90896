"""What the page Devices shows, one view a file."""
