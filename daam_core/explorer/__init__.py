"""What the explorer's page gets and sends back, and the page in one file."""
