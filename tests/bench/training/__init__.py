"""What training costs: against others, against one process, and in memory. Needs an idle machine."""
