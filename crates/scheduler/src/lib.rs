//! Scheduling decisions.
