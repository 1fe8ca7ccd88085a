"""MLflow's and Optuna's pages behind one login, on this machine, for looking only.

Promises: without the token no page answers, and no page writes. Never keeps the token on disk.
"""

__all__ = ["gate", "login", "server", "views"]
