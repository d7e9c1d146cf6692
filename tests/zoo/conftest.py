"""The zoo needs packages of its own (`make test-zoo`); where they are missing its tests are left out."""

from importlib.util import find_spec

collect_ignore_glob = [] if all(map(find_spec, ("timm", "torchvision", "transformers"))) else ["test_*.py"]
