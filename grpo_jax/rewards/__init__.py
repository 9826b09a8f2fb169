"""What a completion is worth: pure functions of text, and the pool they run in."""
