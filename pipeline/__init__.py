"""The engine of aiologs: how a batch of records gets from an input to the outputs."""

__version__ = "0.1.0"
