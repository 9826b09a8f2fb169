"""The method as a loop, and what keeps it safe."""
