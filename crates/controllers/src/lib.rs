//! Controllers as pure functions.
