"""Questions, references and which rewards apply."""
