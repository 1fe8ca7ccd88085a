"""Grow one pretrained causal language model deeper: plan, upscale, train, verify, write it out."""
