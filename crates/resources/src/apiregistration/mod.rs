//! The apiregistration group: who serves which group and version.

pub mod api_service;
