"""Rebuilds from one YAML, by cron: what to do, safely, and what was done."""
