"""Models of Triton's Python backend: each file here is copied into a repository as model.py."""
