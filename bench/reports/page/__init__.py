"""The HTML page of `bench report`, and the templates of all pages."""
