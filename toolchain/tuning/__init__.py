"""`llmdeploy tune`: passes and options for given limits, by rules and then by measuring."""
