"""Training of the embedded subjects: run once; the models that it made are shipped."""
