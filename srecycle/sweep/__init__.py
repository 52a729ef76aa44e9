"""W&B sweep files, run here without an account: what they say, which settings they make, and the jobs that run them."""
