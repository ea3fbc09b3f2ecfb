//! What end-to-end tests stand on: the real binary, stock kubectl, images made on the spot.

pub mod cluster;
pub mod images;
pub mod machine;
pub mod registry;

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A binary of this workspace, built beside the test's own.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("finding the test's own path")?;
    let folder =
        own.parent().and_then(|deps| deps.parent()).context("a test lies in target/<profile>/deps")?;
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is not built: run the tests with `make test`", path.display());
    }
    Ok(path)
}

/// Runs to the end and gives standard output; a failure carries what was said.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("running {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}\n{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Looks until `check` is satisfied; past the limit, what it last complained of is the error.
pub fn eventually<T>(limit_seconds: u64, mut check: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(limit_seconds);
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("not within {limit_seconds} s")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
