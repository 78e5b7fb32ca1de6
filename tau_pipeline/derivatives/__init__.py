"""What goes out and is read again: file names, sidecars, tables, and the status of every scan."""
