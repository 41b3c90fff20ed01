"""What Elasticsearch is to have before its first document: lifecycle policies, templates, aliases, data streams.

`definitions` reads what is wanted, `cluster` asks, `difference` compares, `plan` shows and applies, `doctor` looks at
the indices that are there.
"""
