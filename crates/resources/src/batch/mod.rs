//! The batch group: pods that run to their end.

pub mod cron;
pub mod cron_job;
pub mod job;
#[cfg(test)]
mod tests;
