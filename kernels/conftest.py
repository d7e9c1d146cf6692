"""Doctests of the kernels: those of the GPU only where there is a Triton to import."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("triton") else ["bmrs_kernels/triton_*.py", "bmrs_kernels/*_gpu.py"]
