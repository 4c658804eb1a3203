"""Find and outline the gross tumour volume of head-and-neck cancer on PET/CT: crop or gate?

The command `hngtv` walks the line from raw files to the comparison of arms. The same steps are functions:
`hngtv.cases` reads and prepares, `hngtv.localise` finds, `hngtv.training` trains, `hngtv.two_stage` predicts,
`hngtv.metrics` scores and `hngtv.report` compares. Importing `hngtv` alone imports none of them.
"""


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("hngtv")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
