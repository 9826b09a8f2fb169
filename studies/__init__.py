"""Questions that miniature runs answer: what is compared, and how it is counted."""
