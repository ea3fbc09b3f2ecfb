//! Runs the `nft` program: scripts in on standard input, its complaint out as the error.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Longest part of nft's complaint that an error repeats, bytes.
const COMPLAINT_BYTES_MAX: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run {program}: is the package nftables installed?")]
    Start { program: String, source: std::io::Error },
    #[error("cannot talk to nft")]
    Pipe(#[source] std::io::Error),
    #[error("nft refused the transaction: {0}")]
    Refused(String),
}

/// The `nft` program. Scripts are text because text can be read by whoever debugs a node; what it costs, one process
/// per change, is a few milliseconds.
#[derive(Clone, Debug)]
pub struct Nft {
    program: PathBuf,
}

impl Default for Nft {
    fn default() -> Self {
        // Services may run with a PATH that lacks the sbin directories.
        let program =
            ["/usr/sbin/nft", "/sbin/nft"].into_iter().map(PathBuf::from).find(|path| path.exists());
        Nft { program: program.unwrap_or_else(|| PathBuf::from("nft")) }
    }
}

impl Nft {
    /// Applies a script as one transaction: all of it or nothing.
    pub fn apply(&self, script: &str) -> Result<(), Error> {
        self.run(&["-f", "-"], script).map(|_| ())
    }

    /// Runs nft with arguments and returns what it printed.
    pub fn query(&self, arguments: &[&str]) -> Result<String, Error> {
        self.run(arguments, "")
    }

    fn run(&self, arguments: &[&str], script: &str) -> Result<String, Error> {
        let mut child = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| Error::Start { program: self.program.display().to_string(), source })?;
        let mut stdin = child.stdin.take().expect("stdin was asked for as a pipe");
        // nft reads its whole input before it prints, so writing first cannot block on its output.
        let written = stdin.write_all(script.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(Error::Pipe)?;
        if !output.status.success() {
            let mut complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let cut = (0..=COMPLAINT_BYTES_MAX.min(complaint.len()))
                .rev()
                .find(|at| complaint.is_char_boundary(*at));
            complaint.truncate(cut.unwrap_or(0));
            return Err(Error::Refused(complaint.trim().to_owned()));
        }
        written.map_err(Error::Pipe)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
