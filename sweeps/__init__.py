"""Run many short upscaling trials over a cluster and give one defensible answer."""
