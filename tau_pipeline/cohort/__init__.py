"""Many scans: standardization by manufacturer, tables, harmonization, and standardized maps."""
