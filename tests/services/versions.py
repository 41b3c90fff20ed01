"""The versions that are tested against."""

ELASTICSEARCH = "9.2.0"
KAFKA = "4.1.1"
PASSWORD = "aiologs-test"
"""Of the superuser in clusters with security."""
