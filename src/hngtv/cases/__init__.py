"""Raw files to prepared cases: manifest, checks, phantoms, the prepared store, folds."""
