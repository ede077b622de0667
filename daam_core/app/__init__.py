"""`daam-lens app`: a small local page where one types a prompt and explores what each word did."""
