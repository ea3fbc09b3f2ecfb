//! How components reach the API.
