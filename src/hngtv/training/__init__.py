"""Training of both stages; PyTorch Lightning lives only here."""
