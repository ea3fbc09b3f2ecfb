//! The API server process.
