"""What is read in the end: reports of runs, audits of models, tables and charts."""
