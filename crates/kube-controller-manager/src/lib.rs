//! The controller manager process.
