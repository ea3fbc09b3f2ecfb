//! The CNI plugin: attaches a pod's network namespace to the node's bridge, and lets it go (CNI 0.3.0 to 1.1.0).
//!
//! A pod gets one address (per family) with a full-length prefix and reaches everything, its neighbours on the same
//! node too, through the gateway on the bridge. So every packet passes the node's IP layer: service addresses work
//! between pods of one node whether or not `bridge-nf-call-iptables` is set, and ports of the bridge are isolated from
//! one another.
//!
//! The plugin is stateless but for a folder: one file per reserved address, one per container with host ports. A lock
//! on the folder serialises plugins; DEL works from the folder and from the link's name alone, so that it succeeds
//! however often it is called and after the namespace is gone.

mod attach;
mod bridge;
mod config;
mod error;
mod hostports;
mod install;
mod ipam;

pub use config::{Environment, NetworkConfig, PortMapping};
pub use error::{Code, Error};
pub use install::{Installation, PLUGIN_TYPE};

use serde_json::{Value, json};
use std::io::{Read, Write};

/// The versions of the specification that results can be written in, newest last.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Largest configuration read from standard input.
const INPUT_BYTES_MAX: u64 = 4 << 20;

/// Runs the plugin as a process: environment and standard input in, standard output and exit code out.
pub fn main() -> i32 {
    let mut input = Vec::new();
    // VERSION may come without any input; an unreadable one shows as an undecodable configuration.
    if let Err(error) = std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_end(&mut input) {
        tracing::debug!(%error, "Could not read standard input");
    }
    let (code, output) = run(&Environment::from_process(), &input);
    // The runtime that closed its end has no use for the result.
    if let Err(error) = std::io::stdout().lock().write_all(output.as_bytes()) {
        tracing::debug!(%error, "Could not write the result");
    }
    code
}

/// Carries out one command: returns the exit code and what goes to standard output.
pub fn run(environment: &Environment, input: &[u8]) -> (i32, String) {
    let stated: Value = serde_json::from_slice(input).unwrap_or(Value::Null);
    let version = stated["cniVersion"].as_str().unwrap_or("0.2.0").to_owned();
    match dispatch(environment, input) {
        Ok(Value::Null) => (0, String::new()),
        Ok(result) => (0, result.to_string()),
        Err(error) => (1, error.to_json(&version).to_string()),
    }
}

fn dispatch(environment: &Environment, input: &[u8]) -> Result<Value, Error> {
    if environment.command == "VERSION" {
        let newest = VERSIONS[VERSIONS.len() - 1];
        return Ok(json!({"cniVersion": newest, "supportedVersions": VERSIONS}));
    }
    let config = NetworkConfig::read(input)?;
    if config.plugin_type == install::LOOPBACK_TYPE {
        return attach::loopback(environment, &config);
    }
    match environment.command.as_str() {
        "ADD" => attach::add(environment, &config),
        "DEL" => attach::delete(environment, &config).map(|()| Value::Null),
        "CHECK" => attach::check(environment, &config).map(|()| Value::Null),
        "GC" => attach::collect(&config).map(|()| Value::Null),
        "STATUS" => attach::status(&config).map(|()| Value::Null),
        other => Err(Error::new(Code::InvalidEnvironment, format!("unknown CNI_COMMAND {other:?}"))),
    }
}
