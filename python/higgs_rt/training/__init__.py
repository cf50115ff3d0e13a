"""Training of Higgs Audio v2 models: labels, packed batches, losses and loops (torch only).

Nothing here needs the native library, so the package trains on a machine without a build of it.
"""
