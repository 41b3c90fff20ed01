"""What happens to events on the way: one module, one stage."""
