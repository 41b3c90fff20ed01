"""The versions that are tested against."""

ELASTICSEARCH = "9.2.0"
KAFKA = "4.1.1"
SUPERUSER, PASSWORD = "superuser", "aiologs-test"
"""Of clusters with security."""
