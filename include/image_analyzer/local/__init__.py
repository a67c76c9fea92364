"""The embedded stack: S3, Snowflake and OpenAI stand-ins for a laptop and for tests."""
