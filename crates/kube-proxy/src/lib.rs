//! The service proxy process.
