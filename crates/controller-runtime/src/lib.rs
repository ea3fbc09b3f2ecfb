//! Runs controllers' plans.
