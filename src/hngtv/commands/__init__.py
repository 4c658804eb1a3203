"""One small file per command; Hydra lives only here."""
