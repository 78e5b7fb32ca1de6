"""HTML reports and the methods text."""
