"""Speed and memory, against other libraries and against the hardware."""
