"""The report: frozen view models in, files out. No logic in the templates, no request to the outside."""
