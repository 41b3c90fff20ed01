"""Settings for all tests."""

from hypothesis import HealthCheck, settings

# The machine may be busy or slow: a test fails by what it finds, never by the clock.
settings.register_profile("aiologs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("aiologs")
