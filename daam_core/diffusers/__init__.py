"""Recording pipelines of the diffusers library: tracing, loading, generating."""
