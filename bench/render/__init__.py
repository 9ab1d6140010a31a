"""What a person looks at: tables, pages, figures and pictures."""
