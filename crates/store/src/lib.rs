//! The key-value store behind the API.
